// Package cli is the command line of the hearth binary: one file a command. It parses, explains and reports; the work
// is done by packages app and emit.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hearthws/hearth/internal/app"
)

// Exit codes of the binary.
const (
	ExitOK          = 0
	ExitFailed      = 1 // it could not do, or finish, what was asked
	ExitUsage       = 2 // it was asked wrongly: an option, a value, a command
	ExitUnreachable = 3 // there was nobody to talk to

	exitSignal = 128 // plus the signal's number, as shells have it
)

// An exitError ends the program with a code, and says nothing more.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit with code %d", e.code) }

// An usageError is an error of whoever typed the command.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Run runs the command line args and returns the exit code. It takes over SIGINT and SIGTERM while a server runs.
// environ is as os.Environ has it.
func Run(args, environ []string, stdout, stderr io.Writer) int {
	cmd := newRoot(environ)
	cmd.SetArgs(append([]string{}, args...)) // for nil the library would take the process's own
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.Execute()
	if err == nil {
		return ExitOK
	}
	var e exitError
	if errors.As(err, &e) {
		return e.code
	}
	for line := range strings.Lines(strings.TrimSpace(err.Error())) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintln(stderr, "hearth:", line)
		}
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var option *app.OptionError
	var usage usageError
	if errors.As(err, &option) || errors.As(err, &usage) {
		return ExitUsage
	}
	var unreachable unreachableError
	if errors.As(err, &unreachable) {
		return ExitUnreachable
	}
	return ExitFailed
}

// usageTemplate is the library's own without the parts that never apply here.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} <command>

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name 10}} {{.Short}}{{end}}{{end}}

Each command explains itself: {{.CommandPath}} <command> --help{{else}}{{.UseLine}}{{end}}
`

func newRoot(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "hearth",
		Short: "A realtime WebSocket server",
		Long: `Hearth is a realtime server: WebSocket clients that authenticate after they connect,
rooms, users, direct messages and broadcasts.

Start with:  hearth serve    and open http://localhost:8080/ in two tabs.`,
		Version:       versionText(), // hearth --version, for those who are used to it
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServe(environ), newEmit(environ), newVersion())
	root.SetHelpCommand(&cobra.Command{Use: "help [command]", Short: "Explain a command", Hidden: true, DisableFlagsInUseLine: true, RunE: help})
	return root
}

// help is hearth help serve, for those who are used to it.
func help(cmd *cobra.Command, args []string) error {
	about, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return unknownCommand(cmd.Root(), args)
	}
	return about.Help()
}

// unknownCommand answers whatever follows hearth and is no command.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usageError{fmt.Errorf("unknown command %q: did you mean %q?", args[0], near[0])}
	}
	return usageError{fmt.Errorf("unknown command %q: hearth --help lists all", args[0])}
}

// flagError adds to pflag's message what may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if unknown {
		if near := app.Nearest(name); near != "" && cmd.Flag(near) != nil {
			return usageError{fmt.Errorf("%w: did you mean --%s?", err, near)}
		}
	}
	return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
}

// noArgs refuses arguments where only flags make sense.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, and got %q: options start with --", cmd.CommandPath(), args[0])}
	}
	return nil
}
