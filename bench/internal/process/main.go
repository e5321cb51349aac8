package process

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Main calls run with the arguments of the command line, and returns the exit code. The context of
// run ends at SIGINT or SIGTERM.
func Main(run func(ctx context.Context, args []string, stdout, stderr io.Writer) int) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}
