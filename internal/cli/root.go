// Package cli is the command line of the hearth binary, with one file per command. It parses
// arguments and reports results; packages app and emit do the work.
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
	ExitFailed      = 1 // the command failed or did not finish
	ExitUsage       = 2 // wrong usage: an option, a value or a command
	ExitUnreachable = 3 // Redis cannot be reached

	exitSignal = 128 // plus the number of the signal, as in a shell
)

// An exitError ends the program with an exit code and prints nothing more.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit with code %d", e.code) }

// A usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Run runs the command line args and returns the exit code. It handles SIGINT and SIGTERM while a
// command runs. environ has the format of os.Environ.
func Run(args, environ []string, stdout, stderr io.Writer) int {
	cmd := newRoot(environ)
	cmd.SetArgs(append([]string{}, args...)) // cobra reads os.Args if args is nil
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

// usageTemplate is the template of cobra without the parts that Hearth does not use.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} <command>

{{if .HasExample}}Examples:
{{.Example}}

{{end}}Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name 10}} {{.Short}}{{end}}{{end}}

Help for a command: {{.CommandPath}} <command> --help{{else}}{{.UseLine}}{{end}}
`

func newRoot(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "hearth",
		Short: "A realtime WebSocket server",
		Long: `Hearth is a realtime server: WebSocket clients that authenticate after they connect,
rooms, users, direct messages and broadcasts.

Start with:  hearth serve    and open http://localhost:8080/ in two tabs.`,
		Version:       versionText(), // for hearth --version
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServe(environ), newEmit(environ), newConfig(environ), newToken(environ), newReload(environ), newVersion())
	root.SetHelpCommand(&cobra.Command{Use: "help [command]", Short: "Explain a command", Hidden: true, DisableFlagsInUseLine: true, RunE: help})
	return root
}

// help implements hearth help COMMAND.
func help(cmd *cobra.Command, args []string) error {
	about, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return unknownCommand(cmd.Root(), args)
	}
	return about.Help()
}

// unknownCommand reports an argument that is not a command.
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
	return usageError{fmt.Errorf("unknown command %q: run hearth --help for a list of commands", args[0])}
}

// flagError adds a suggestion to pflag's error message.
func flagError(cmd *cobra.Command, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if unknown {
		if near := app.Nearest(name); near != "" && cmd.Flag(near) != nil {
			return usageError{fmt.Errorf("%w: did you mean --%s?", err, near)}
		}
	}
	return usageError{fmt.Errorf("%w: run %s --help for a list of options", err, cmd.CommandPath())}
}

// noArgs rejects arguments of a command that takes only options.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q: options start with --", cmd.CommandPath(), args[0])}
	}
	return nil
}
