package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hearthws/hearth/internal/emit"
)

const emitLong = `Send events to the clients of all servers that share a Redis. Use it in scripts and cron
jobs, and from programs in languages that have no emitter library.

  room NAME     the members of a room
  user ID       every client of a user
  client ID     one client
  all           every client; "broadcast" is the same

DATA is JSON: null, 7, '"a text"', '{"n":1}'. Quote it for the shell. Clients receive it
unchanged. Without DATA, clients receive an event without data. Put -- before data that
starts with -.

With --lines, each line of a file or of standard input is one event:
  {"room":"lobby","event":"news","data":{"n":1},"exclude":["2f1b7c1e-…"]}
  {"user":"ada","event":"mail","data":null}
  {"client":"2f1b7c1e-…","event":"ready","data":true}
  {"all":true,"event":"maintenance","data":{"minutes":5}}
A line for a room with history may have a "key", as in --key.
Events are sent in the order of the lines, in batches, as soon as they are read: the input
may be a pipe that never ends. Empty lines are ignored. Unknown members are an error, and
so are lines longer than 4 MiB.`

const emitExamples = `  export HEARTH_REDIS=redis://localhost:6379
  hearth emit room lobby news '{"n":1}'
  hearth emit user ada mail '"you have mail"'
  hearth emit all maintenance '{"minutes":5}' --exclude 2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c11
  hearth emit room lobby report --file report.json
  date +'"%c"' | hearth emit all time --file -
  hearth emit room chat:1 report '{"day":7}' --history 'chat:*=100/5m' --key report-7
  hearth emit --lines events.jsonl
  tail -f events.jsonl | hearth emit --lines --keep-going`

const emitTrailer = `The command prints nothing after it has sent one event. With --lines it prints the number
of events sent. Ctrl-C stops it; with --lines it first finishes the batch that is being
sent, and a second Ctrl-C stops it at once.

Exit codes:
  0             Redis accepted all events
  1             Redis rejected an event or did not answer in time. After a timeout the
                event may have been sent. With --lines, the lines after it are not sent.
  2             an option, the data or a line is invalid. The lines before an invalid line
                have been sent; with --keep-going, the lines after it too.
  3             Redis cannot be reached; nothing was sent
  130, 143      stopped by SIGINT (Ctrl-C) or SIGTERM
`

const emitTimeout = 10 * time.Second

// emitFlags are the options of hearth emit.
type emitFlags struct {
	redis     string
	prefix    string
	history   []string
	key       string
	exclude   []string
	file      string
	lines     bool
	keepGoing bool
	timeout   time.Duration
}

func newEmit(environ []string) *cobra.Command {
	var f emitFlags
	cmd := &cobra.Command{
		Use:   "emit",
		Short: "Send events to clients, from a script",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("redis") {
				f.redis = variable(environ, "HEARTH_REDIS")
			}
			if !cmd.Flags().Changed("redis-prefix") {
				f.prefix = variable(environ, "HEARTH_REDIS_PREFIX")
			}
			if !cmd.Flags().Changed("history") {
				f.history = []string{variable(environ, "HEARTH_HISTORY")}
			}
			return runEmit(cmd, f, args)
		},
	}
	cmd.Flags().StringVar(&f.redis, "redis", "", "")
	cmd.Flags().StringVar(&f.prefix, "redis-prefix", "", "")
	cmd.Flags().StringArrayVar(&f.history, "history", nil, "")
	cmd.Flags().StringVar(&f.key, "key", "", "")
	cmd.Flags().StringArrayVar(&f.exclude, "exclude", nil, "")
	cmd.Flags().StringVar(&f.file, "file", "", "")
	cmd.Flags().BoolVar(&f.lines, "lines", false, "")
	cmd.Flags().BoolVar(&f.keepGoing, "keep-going", false, "")
	cmd.Flags().DurationVar(&f.timeout, "timeout", emitTimeout, "")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if strings.HasPrefix(err.Error(), "unknown shorthand flag") {
			err = fmt.Errorf("%w: put -- before data that starts with -", err)
		}
		return flagError(cmd, err)
	})
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { io.WriteString(cmd.OutOrStdout(), emitHelp()) })
	return cmd
}

func emitHelp() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n", emitLong)
	b.WriteString("  hearth emit room|user|client TARGET EVENT [DATA]\n  hearth emit all EVENT [DATA]\n  hearth emit --lines [FILE]\n")
	fmt.Fprintf(&b, "\nExamples:\n%s\n\nOptions:\n", emitExamples)
	writeOption(&b, "--redis url", "URL of the servers' Redis: redis://user:password@host:6379, rediss:// for TLS, or "+
		"unix:///path/to/socket (default: the variable HEARTH_REDIS, which ps does not show)", "")
	writeOption(&b, "--redis-prefix prefix", "the redis-prefix of the servers, if they have one (default: the variable "+
		"HEARTH_REDIS_PREFIX)", "")
	writeOption(&b, "--history rooms=size/age", "the history of the servers, as in chat:*=100/5m; may be repeated (default: the "+
		"variable HEARTH_HISTORY)", "")
	writeOption(&b, "--key key", "send to a room with history at most once: with the same key within 2 minutes, the "+
		"command sends nothing and succeeds, so it can be repeated after a failure", "")
	writeOption(&b, "--exclude id", "do not send to this client of the room, or of all; may be repeated", "")
	writeOption(&b, "--file file", "read the data from a file; - is standard input", "")
	writeOption(&b, "--lines", "send one event per line of FILE, or of standard input", "")
	writeOption(&b, "--keep-going", "with --lines: report invalid lines and continue", "")
	writeOption(&b, "--timeout duration", "how long to wait for Redis; with --lines, per batch", emitTimeout.String())
	writeOption(&b, "-h, --help", "show this help", "")
	fmt.Fprintf(&b, "\n%s", emitTrailer)
	return b.String()
}

// variable returns an environment variable. An empty variable counts as not set.
func variable(environ []string, name string) string {
	value := ""
	for _, kv := range environ {
		if n, v, _ := strings.Cut(kv, "="); n == name {
			value = v
		}
	}
	return value
}

// runEmit checks all options and arguments before it connects.
func runEmit(cmd *cobra.Command, f emitFlags, args []string) error {
	var event emit.Event
	var in io.Reader
	history, err := emit.ParseHistory(f.history)
	switch {
	case err != nil:
		err = fmt.Errorf("--history (or HEARTH_HISTORY): %w", err)
	case f.lines:
		var closeInput func()
		if in, closeInput, err = linesInput(cmd, f, args); err == nil {
			defer closeInput()
		}
	default:
		if event, err = oneEvent(cmd, f, args); err == nil {
			err = checkKey(event, history)
		}
	}
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return usageError{err}
	}
	sender, err := emit.Open(f.redis, f.prefix, history)
	if err != nil {
		return usageError{fmt.Errorf("--redis (or HEARTH_REDIS) takes a URL, as in redis://:password@host:6379: %w", err)}
	}
	ctx, stop := untilSignal()
	defer stop()
	if f.lines {
		err = emitLines(ctx, cmd.ErrOrStderr(), sender, in, f)
	} else {
		err = emitOne(ctx, cmd.ErrOrStderr(), sender, event, f)
	}
	_ = sender.Close() // everything is sent, or err says why not
	return err
}

// checkKey checks that an event with a key is for a room with history.
func checkKey(event emit.Event, history emit.History) error {
	if event.Key == "" {
		return nil
	}
	if _, ok := history.Rule(event.Target); !ok {
		return fmt.Errorf("--key works only for rooms with history: give the history of the servers, as in --history '%s=100/5m'", event.Target)
	}
	return nil
}

func (f emitFlags) check() error {
	switch {
	case f.redis == "":
		return errors.New("which Redis? Set --redis or HEARTH_REDIS to the Redis of the servers, as in --redis redis://localhost:6379")
	case f.timeout < time.Millisecond:
		return fmt.Errorf("--timeout=%v: takes at least 1ms", f.timeout)
	}
	if err := emit.CheckPrefix(f.prefix); err != nil {
		return fmt.Errorf("--redis-prefix (or HEARTH_REDIS_PREFIX) %q: %w", f.prefix, err)
	}
	return nil
}

// oneEvent reads one event from the arguments.
func oneEvent(cmd *cobra.Command, f emitFlags, args []string) (emit.Event, error) {
	var event emit.Event
	if len(args) == 0 {
		return event, errors.New(`no target: give room, user, client, all or --lines, as in hearth emit room lobby news '{"n":1}'; see hearth emit --help`)
	}
	if f.keepGoing {
		return event, errors.New("--keep-going works only with --lines")
	}
	event.To, args = args[0], args[1:]
	switch event.To {
	case "broadcast":
		event.To = emit.ToAll
	case emit.ToAll:
	case emit.ToRoom, emit.ToUser, emit.ToClient:
		if len(args) == 0 {
			return event, fmt.Errorf("which %s? hearth emit %s NAME EVENT [DATA]", event.To, event.To)
		}
		event.Target, args = args[0], args[1:]
	default:
		return event, fmt.Errorf("unknown target %q: give room, user, client or all", event.To)
	}
	if len(args) == 0 {
		return event, errors.New("which event? The name of the event is missing; see hearth emit --help")
	}
	event.Event, args = args[0], args[1:]
	switch {
	case f.file != "" && len(args) > 0:
		return event, fmt.Errorf("data given twice: --file %s and %.40q: remove one", f.file, args[0])
	case len(args) > 1:
		return event, fmt.Errorf("unexpected argument %.40q: quote the data for the shell, '{\"n\":1}'", args[1])
	}
	event.Exclude, event.Key = f.exclude, f.key
	if cmd.Flags().Changed("key") && f.key == "" {
		return event, errors.New("--key is empty: omit it for an event without a key")
	}
	var err error
	if event.Data, err = readData(cmd, f, args); err != nil {
		return event, err
	}
	return event, event.Check()
}

// readData returns the data of one event without the white space around it, such as the newline at
// the end of a file.
func readData(cmd *cobra.Command, f emitFlags, args []string) (json.RawMessage, error) {
	if f.file == "" {
		if len(args) == 0 {
			return nil, nil
		}
		return json.RawMessage(args[0]), nil
	}
	in, closeInput, err := openInput(cmd, f.file)
	if err != nil {
		return nil, err
	}
	defer closeInput()
	data, err := io.ReadAll(io.LimitReader(in, emit.MaxText+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("--file: %w", err)
	case len(data) > emit.MaxText:
		return nil, fmt.Errorf("--file %s: the data is larger than %d MiB", f.file, emit.MaxText>>20)
	}
	// Not nil for an empty file: that is a mistake, and nil means an event without data.
	return append([]byte{}, bytes.TrimSpace(data)...), nil
}

func linesInput(cmd *cobra.Command, f emitFlags, args []string) (io.Reader, func(), error) {
	switch {
	case len(args) > 1:
		return nil, nil, fmt.Errorf("--lines takes one FILE, got %q", args)
	case f.file != "":
		return nil, nil, errors.New("--file is for the data of one event: give the file after --lines")
	case len(f.exclude) > 0:
		return nil, nil, errors.New(`--exclude is for one event: with --lines, each line has its own "exclude"`)
	case f.key != "":
		return nil, nil, errors.New(`--key is for one event: with --lines, each line has its own "key"`)
	case len(args) == 0:
		args = []string{"-"}
	}
	return openInput(cmd, args[0])
}

// openInput opens a file, or standard input for "-".
func openInput(cmd *cobra.Command, name string) (io.Reader, func(), error) {
	if name == "-" {
		in := cmd.InOrStdin()
		if terminal(in) {
			fmt.Fprintln(cmd.ErrOrStderr(), "hearth: reading from the terminal; press Ctrl-D at the start of a line to finish")
		}
		return in, func() {}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	return file, func() { file.Close() }, nil
}

func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func emitOne(ctx context.Context, stderr io.Writer, sender *emit.Sender, event emit.Event, f emitFlags) error {
	sending, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	err := sender.One(sending, event)
	if err == nil {
		return nil
	}
	if end := signalExit(ctx); end != nil {
		fmt.Fprintln(stderr, "hearth: interrupted; the event may have been sent")
		return end
	}
	return explainUnsent(0, err, f)
}

func emitLines(ctx context.Context, stderr io.Writer, sender *emit.Sender, in io.Reader, f emitFlags) error {
	p := &progress{out: stderr, show: terminal(stderr)}
	s, err := sender.Lines(ctx, in, emit.Options{KeepGoing: f.keepGoing, Timeout: f.timeout, Bad: p.bad, Progress: p.sent})
	p.clear()
	summary := fmt.Sprintf("%d sent", s.Sent)
	if s.Unsent > 0 {
		summary += fmt.Sprintf("; failed: %d, first at line %d", s.Unsent, s.FirstUnsent)
	}
	if s.Bad > 0 {
		summary += fmt.Sprintf("; invalid lines: %d", s.Bad)
	}
	end := signalExit(ctx)
	switch {
	case err == nil && s.Bad > 0:
		err = exitError{ExitUsage}
	case err == nil:
	case end != nil && s.Unsent == 0:
		err = end
	case s.Unsent > 0:
		err = explainUnsent(s.Sent, err, f)
	case !f.keepGoing && s.Bad > 0:
		err = usageError{fmt.Errorf("%w\nuse --keep-going to skip invalid lines", err)}
	default:
		err = usageError{err}
	}
	fmt.Fprintln(stderr, "hearth:", summary)
	return err
}

// An unreachableError says that Redis cannot be reached and that nothing was sent.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

// explainUnsent adds the likely cause and fix to the error of a send. sent is the number of events
// that were sent before.
func explainUnsent(sent int, err error, f emitFlags) error {
	switch {
	case errors.Is(err, emit.ErrDown) && sent == 0:
		return unreachableError{fmt.Errorf("%w: check the address in --redis or HEARTH_REDIS, and that Redis runs there", err)}
	case errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, emit.ErrDown):
		return fmt.Errorf("%w: Redis did not answer within %v (--timeout): the event may have been sent", err, f.timeout)
	}
	return err
}

// progress shows the number of sent events if out is a terminal, and reports invalid lines. One
// goroutine uses it.
type progress struct {
	out   io.Writer
	show  bool
	drawn bool
	next  time.Time // time of the next update
}

func (p *progress) sent(s emit.Summary) {
	if now := time.Now(); p.show && now.After(p.next) {
		fmt.Fprintf(p.out, "\r%d sent", s.Sent)
		p.drawn, p.next = true, now.Add(200*time.Millisecond)
	}
}

func (p *progress) bad(line int, err error) {
	p.clear()
	fmt.Fprintf(p.out, "hearth: line %d: %v\n", line, err)
}

// clear removes the progress so that another line can be written.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}
