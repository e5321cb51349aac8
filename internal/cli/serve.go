package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hearthws/hearth/internal/app"
)

const serveLong = `Run a server. Without any option it serves http://localhost:8080/ with a page to try
it on, keeps everything in this process, and runs in development mode: any name is a user,
any room may be joined. With --redis, several servers share their clients.

Development mode is all there is so far. Tokens and webhooks are not part of this version,
so the server refuses to listen where other machines could reach it.

Each option may be given in three ways; the first wins:
  a flag         --max-payload 64KiB
  a variable     HEARTH_MAX_PAYLOAD=64KiB
  a YAML file    max-payload: 64KiB      named by --config or HEARTH_CONFIG
A flag counts even if it is empty: --redis "" is none. An empty variable counts as not set.
Durations have a unit (500ms, 30s, 1m30s), sizes may (131072, 128KiB, 1MiB), lists are
separated by commas.`

const serveExamples = `  hearth serve                                   on http://localhost:8080/
  hearth serve --listen localhost:9000 --log-level debug
  hearth serve --config hearth.yaml --print-config
  HEARTH_LISTEN=127.0.0.1:0 hearth serve         on any free port
  HEARTH_REDIS=redis://:password@localhost:6379 hearth serve
  hearth serve --tls-cert cert.pem --tls-key key.pem`

const serveTrailer = `Signals: SIGINT (Ctrl-C) and SIGTERM close all clients with 1001 and end the server; a
second one ends it at once.

Exit codes: 0 ended as asked, 1 failed or the shutdown was cut short, 2 an option that
cannot work, 130 and 143 ended at once by a second SIGINT or SIGTERM.
`

func newServe(environ []string) *cobra.Command {
	var config string
	var printConfig bool
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run a server",
		Long:    serveLong,
		Example: serveExamples,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			src := app.Sources{Flags: givenFlags(cmd.Flags()), Environ: environ}
			if cmd.Flags().Changed("config") {
				src.File = &config
			}
			cfg, settings, err := app.Load(src)
			if err != nil {
				return err
			}
			remarks := app.MisspelledVariables(environ)
			if printConfig {
				for _, remark := range remarks {
					fmt.Fprintln(cmd.ErrOrStderr(), "hearth:", remark)
				}
				_, err := io.WriteString(cmd.OutOrStdout(), app.WriteYAML(settings))
				return err
			}
			log := app.NewLogger(cfg, cmd.ErrOrStderr(), noColour(environ))
			for _, remark := range remarks {
				log.Warn(remark)
			}
			return serve(cfg, log)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&config, "config", "", "")
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "")
	for _, o := range app.Options() {
		f := cmd.Flags().VarPF(&optionFlag{option: o}, o.Name, "", o.Usage)
		if o.Switch {
			f.NoOptDefVal = "true"
		}
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { io.WriteString(cmd.OutOrStdout(), serveHelp()) })
	return cmd
}

// signalDebounce is how long a signal may be repeated without meaning anything: timeout(1) and others signal the process and its
// group, and nobody presses Ctrl-C twice that fast.
const signalDebounce = 200 * time.Millisecond

// serve runs a server until a signal, or until it fails.
func serve(cfg app.Config, log *slog.Logger) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)

	srv, err := app.New(cfg, log)
	if err != nil {
		return err
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	// Ends after a drain; waited for below, except when a second signal ends the whole process.
	go func() { ended <- srv.Run(ctx) }()

	var first time.Time
	for {
		select {
		case err := <-ended:
			return logFailure(log, err)
		case sig := <-signals:
			switch {
			case first.IsZero():
				log.Info("received a signal", "signal", sig.String())
				cancel()
				first = time.Now() // what repeats it waits in the channel until now
			case time.Since(first) > signalDebounce:
				log.Warn("ending at once", "signal", sig.String())
				return exitError{exitSignal + int(sig.(syscall.Signal))}
			}
		}
	}
}

// logFailure reports what ended a server in the log, where whoever watches it looks.
func logFailure(log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	message := "failed"
	if errors.Is(err, app.ErrCutShort) {
		message = "some clients were cut off"
	}
	log.Error(message, "error", err)
	return exitError{ExitFailed}
}

// An optionFlag collects what was given for an option, unread: app.Load reads all sources alike.
type optionFlag struct {
	option app.Option
	values []string
}

func (f *optionFlag) String() string     { return strings.Join(f.values, ",") }
func (f *optionFlag) Set(s string) error { f.values = append(f.values, s); return nil }
func (f *optionFlag) Type() string       { return f.option.Hint }

func givenFlags(flags *pflag.FlagSet) map[string][]string {
	m := map[string][]string{}
	flags.Visit(func(f *pflag.Flag) {
		if o, ok := f.Value.(*optionFlag); ok {
			m[f.Name] = o.values
		}
	})
	return m
}

// noColour follows no-color.org, and terminals that have none.
func noColour(environ []string) bool {
	return slices.ContainsFunc(environ, func(kv string) bool {
		name, value, _ := strings.Cut(kv, "=")
		return name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb"
	})
}

// serveHelp lays the options out under their headings, with their defaults in a column of their own.
func serveHelp() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n  hearth serve [options]\n\nExamples:\n%s\n", serveLong, serveExamples)
	group := ""
	for _, o := range app.Options() {
		if o.Group != group {
			group = o.Group
			fmt.Fprintf(&b, "\n%s:\n", group)
		}
		flag := "--" + o.Name
		if !o.Switch {
			flag += " " + o.Hint
		}
		writeOption(&b, flag, o.Usage, o.Default)
	}
	b.WriteString("\nConfiguration:\n")
	writeOption(&b, "--config file", "a YAML file with options; an unknown one in it is an error", "")
	writeOption(&b, "--print-config", "print what the server would run with, and from where, and exit", "")
	writeOption(&b, "-h, --help", "this text", "")
	fmt.Fprintf(&b, "\n%s", serveTrailer)
	return b.String()
}

const (
	usageColumn = 34
	helpWidth   = 92
)

// writeOption breaks the usage into lines beside the flag; a flag too long for its column gets a line of its own.
func writeOption(b *strings.Builder, flag, usage, def string) {
	words := strings.Fields(usage)
	if def != "" && def != "false" {
		words = append(words, "(default "+def+")") // one word: never broken
	}
	line := fmt.Sprintf("  %-*s", usageColumn-2, flag)
	if len(line) > usageColumn {
		fmt.Fprintln(b, strings.TrimRight(line, " "))
		line = strings.Repeat(" ", usageColumn)
	}
	start := len(line)
	for _, word := range words {
		if len(line)+len(word) > helpWidth && len(line) > start {
			fmt.Fprintln(b, strings.TrimRight(line, " "))
			line = strings.Repeat(" ", usageColumn)
			start = len(line)
		}
		line += word + " "
	}
	fmt.Fprintln(b, strings.TrimRight(line, " "))
}
