package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/hearthws/hearth/internal/app"
)

// reloads loads the configuration of a server again when it is requested to.
type reloads struct {
	src app.Sources
	log app.Logger

	settings  []app.Setting // in effect; owned by the goroutine after start
	requests  chan struct{} // holds at most one request: it covers those that follow before it begins
	goroutine sync.WaitGroup
}

// start begins to serve requests for a server, until ctx is done.
func (r *reloads) start(ctx context.Context, srv *app.Server) {
	r.requests = make(chan struct{}, 1)
	// Ends with ctx. wait waits for it.
	r.goroutine.Go(func() {
		for {
			select {
			case <-r.requests:
				r.reload(ctx, srv)
			case <-ctx.Done():
				return
			}
		}
	})
}

// wait waits until the goroutine of start has ended.
func (r *reloads) wait() { r.goroutine.Wait() }

// request requests a reload and returns at once.
func (r *reloads) request() {
	select {
	case r.requests <- struct{}{}:
	default: // one is waiting
	}
}

// reload loads the configuration once, and reports what has changed.
func (r *reloads) reload(ctx context.Context, srv *app.Server) {
	_, next, err := app.Load(r.src)
	var result app.Reloaded
	if err == nil {
		result, err = srv.Reload(ctx, r.settings, next)
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			r.log.Error("cannot load the configuration again, keeping the current one", "error", strings.TrimSpace(line))
		}
		return
	}
	r.settings = result.Settings
	r.log.SetLevel(result.Config.LogLevel)
	if len(result.Restart) > 0 {
		r.log.Warn("changes of these options take effect after a restart", "options", strings.Join(result.Restart, ","))
	}
	r.log.Info("loaded the configuration again", "changed", strings.Join(result.Applied, ","))
}

const reloadLong = `Make a running server load its configuration again, as SIGHUP does. The server needs the
option pid-file. Give this command the same file, or the same options. It first checks the
configuration, and does nothing if there are mistakes. The log of the server says which
changes took effect.`

func newReload(environ []string) *cobra.Command {
	var options optionFlags
	cmd := &cobra.Command{
		Use: "reload", Short: "Make a server load its configuration again", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := app.Load(options.sources(cmd, environ))
			if err != nil {
				return err
			}
			if cfg.PIDFile == "" {
				return usageError{errors.New("which server? Set --pid-file, or --config with a file that has pid-file")}
			}
			pid, err := signalServer(cfg.PIDFile)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "sent SIGHUP to process %d: see its log for the result\n", pid)
			return err
		},
	}
	options.add(cmd, app.Options())
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n\nUsage:\n  hearth reload [options of hearth serve]\n\nExamples:\n"+
			"  hearth reload --config /etc/hearth/hearth.yaml\n  hearth reload --pid-file /run/hearth/pid\n", reloadLong)
	})
	return cmd
}

var errNoServer = errors.New("no server runs with this pid-file")

// readPID returns the number in a pid file.
func readPID(in io.Reader) (int, error) {
	var pid int
	if _, err := fmt.Fscan(io.LimitReader(in, 32), &pid); err != nil || pid < 2 {
		return 0, errors.New("the file does not have the number of a process")
	}
	return pid, nil
}
