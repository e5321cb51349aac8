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

	"github.com/hearthws/hearth/internal/app"
)

const serveLong = `Run a server. Without options it serves a demo page on http://localhost:8080/, runs as a
single server, and uses development mode: clients sign in with any name, without a
password, and may join any room. With --redis, several servers act as one.

In development mode the server listens only on addresses that other machines cannot
reach. For others, choose how clients authenticate: --auth jwt, with tokens of your
application, --auth webhook, as your backend decides, or --auth anonymous. Then the server
has no demo page.

You can set each option in three ways. The first one in this list that is set applies:
  a flag         --max-payload 64KiB
  a variable     HEARTH_MAX_PAYLOAD=64KiB
  a YAML file    max-payload: 64KiB      (set its name with --config or HEARTH_CONFIG)
An empty flag overrides the others: --redis "" turns Redis off. An empty variable counts as
not set. Durations need a unit (500ms, 30s, 1m30s). Sizes are in bytes or have a unit
(131072, 128KiB, 1MiB). Separate the values of a list with commas.`

const serveExamples = `  hearth serve                                   listen on http://localhost:8080/
  hearth serve --listen localhost:9000 --log-level debug
  hearth serve --config hearth.yaml --print-config
  HEARTH_LISTEN=127.0.0.1:0 hearth serve         listen on any free port
  HEARTH_REDIS=redis://:password@localhost:6379 hearth serve
  hearth serve --tls-cert cert.pem --tls-key key.pem
  hearth serve --listen :8080 --auth jwt --jwt-secret-file /run/secrets/jwt`

const serveTrailer = `Signals: SIGINT (Ctrl-C) or SIGTERM closes all clients, with code 1001 or 1012, and stops
the server. A second signal stops it at once. SIGHUP (or hearth reload) loads the file and
the files with secrets again; the log says which changes took effect.

Exit codes:
  0             the server stopped after a signal
  1             the server failed, or cut off clients at the end of shutdown-timeout
  2             an option is invalid
  130, 143      a second SIGINT or SIGTERM stopped the server at once
`

func newServe(environ []string) *cobra.Command {
	var options optionFlags
	var printConfig bool
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run a server",
		Long:    serveLong,
		Example: serveExamples,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printConfig {
				for _, remark := range app.MisspelledVariables(environ) {
					fmt.Fprintln(cmd.ErrOrStderr(), "hearth:", remark)
				}
				return runConfigPrint(cmd, options.sources(cmd, environ))
			}
			src := options.sources(cmd, environ)
			cfg, settings, err := app.Load(src)
			if err != nil {
				return err
			}
			log := app.NewLogger(cfg, cmd.ErrOrStderr(), noColour(environ))
			for _, remark := range app.MisspelledVariables(environ) {
				log.Warn(remark)
			}
			return serve(cfg, log, &reloads{src: src, settings: settings, log: log}, notifierOf(environ))
		},
	}
	options.add(cmd, app.Options())
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "")
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { io.WriteString(cmd.OutOrStdout(), serveHelp()) })
	return cmd
}

// signalDebounce is the time after the first signal in which further signals are ignored.
// timeout(1) and other programs send a signal to the process and to its group; a user cannot press
// Ctrl-C twice that fast.
const signalDebounce = 200 * time.Millisecond

// serve runs a server until a signal arrives or the server fails.
func serve(cfg app.Config, log app.Logger, r *reloads, manager notifier) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	srv, err := app.New(cfg, log.Logger)
	if err != nil {
		return err
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	remove, err := writePIDFile(cfg.PIDFile)
	if err != nil {
		return err
	}
	defer remove()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	// Ends after the drain. serve waits for it below, unless a second signal ends the process.
	go func() { ended <- srv.Run(ctx) }()
	r.start(ctx, srv)
	defer r.wait()

	notify := func(state string) {
		if err := manager.send(state); err != nil {
			log.Warn("cannot notify the service manager", "error", err)
		}
	}
	started := srv.Started()
	var first time.Time
	for {
		select {
		case <-started:
			notify(stateReady)
			started = nil
		case err := <-ended:
			cancel()
			return logFailure(log.Logger, err)
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				r.request()
			case first.IsZero():
				log.Info("shutting down", "signal", sig.String())
				cancel()
				notify(stateStopping)
				first = time.Now() // repeated signals wait in the channel until now
			case time.Since(first) > signalDebounce:
				log.Warn("second signal: exiting now", "signal", sig.String())
				return exitError{exitSignal + int(sig.(syscall.Signal))}
			}
		}
	}
}

// logFailure logs the error that ended a server: users look for it in the log.
func logFailure(log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	message := "server failed"
	if errors.Is(err, app.ErrCutShort) {
		message = "shutdown timed out: some connections were cut off"
	}
	log.Error(message, "error", err)
	return exitError{ExitFailed}
}

// noColour reports whether the environment asks for output without colour (NO_COLOR, see
// no-color.org) or names a terminal without colour.
func noColour(environ []string) bool {
	return slices.ContainsFunc(environ, func(kv string) bool {
		name, value, _ := strings.Cut(kv, "=")
		return name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb"
	})
}

// serveHelp returns the help text: the options in groups, with their defaults.
func serveHelp() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n  hearth serve [options]\n\nExamples:\n%s\n", serveLong, serveExamples)
	writeOptions(&b, app.Options())
	b.WriteString("\nConfiguration:\n")
	writeOption(&b, "--config file", "YAML file with options; unknown options are an error", "")
	writeOption(&b, "--print-config", "print the value and the source of each option, and exit; see hearth config --help", "")
	writeOption(&b, "-h, --help", "show this help", "")
	fmt.Fprintf(&b, "\n%s", serveTrailer)
	return b.String()
}
