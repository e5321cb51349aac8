package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"
)

// A Logger is a logger whose level can change.
type Logger struct {
	*slog.Logger
	level *slog.LevelVar
}

// NewLogger returns the logger that c configures, writing to w. With the format auto it writes
// readable lines if w is a terminal, and otherwise one JSON object per line. Lines have colour only
// on a terminal, and not if noColour is set (NO_COLOR, TERM=dumb).
func NewLogger(c Config, w io.Writer, noColour bool) Logger {
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	f, isFile := w.(*os.File)
	tty := isFile && term.IsTerminal(int(f.Fd()))
	var h slog.Handler = &textHandler{out: &lineWriter{w: w}, level: level, colour: tty && !noColour}
	if c.LogFormat == "json" || c.LogFormat == "auto" && !tty {
		h = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: withUnits})
	}
	return Logger{slog.New(h), level}
}

// SetLevel sets the lowest level that is logged, also for loggers that were derived from this one.
// It may be called on any goroutine.
func (l Logger) SetLevel(level slog.Level) { l.level.Set(level) }

// withUnits writes a duration as "1.5s", where JSON would have a number without a unit.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// A lineWriter writes whole lines from several goroutines. All handlers that are derived from one
// handler share it.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) writeLine(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.Write(b)
	return err
}

// A textHandler writes records in a format for people:
//
//	15:04:05 INFO  client connected                 user=ada client=6f1c…
//
// Its fields are read-only.
type textHandler struct {
	out    *lineWriter
	level  slog.Leveler
	colour bool
	prefix string // of keys, from WithGroup: "a.b."
	attrs  string // formatted, from WithAttrs
}

// messageWidth is the column where attributes start, unless the message is longer.
const messageWidth = 36

func (h *textHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if !r.Time.IsZero() {
		b.WriteString(h.paint("2", r.Time.Format("15:04:05")) + " ")
	}
	b.WriteString(h.paint(levelColour(r.Level), fmt.Sprintf("%-5s", r.Level)) + " ")
	var attrs strings.Builder
	attrs.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		h.appendAttr(&attrs, h.prefix, a)
		return true
	})
	message := strings.Map(printableOr('\uFFFD'), r.Message)
	if attrs.Len() > 0 {
		message = fmt.Sprintf("%-*s", messageWidth, message)
	}
	b.WriteString(message + attrs.String() + "\n")
	return h.out.writeLine([]byte(b.String()))
}

func (h *textHandler) WithAttrs(as []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range as {
		h.appendAttr(&b, h.prefix, a)
	}
	c := *h
	c.attrs += b.String()
	return &c
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	c := *h
	if name != "" {
		c.prefix += name + "."
	}
	return &c
}

func (h *textHandler) appendAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, g := range v.Group() {
			h.appendAttr(b, prefix, g)
		}
		return
	}
	b.WriteString(" " + h.paint("2", quoteIfNeeded(prefix+a.Key)+"=") + quoteIfNeeded(valueText(v)))
}

func valueText(v slog.Value) string {
	if v.Kind() == slog.KindTime {
		return v.Time().Format(time.RFC3339)
	}
	return v.String()
}

// quoteIfNeeded quotes text that a client chose, such as a user name or a header. The result is
// harmless to the terminal and shows where the value ends.
func quoteIfNeeded(s string) string {
	odd := func(r rune) bool { return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r) }
	if s == "" || strings.ContainsFunc(s, odd) {
		return strconv.Quote(s)
	}
	return s
}

func (h *textHandler) paint(sgr, s string) string {
	if !h.colour || sgr == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func levelColour(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "1;31"
	case l >= slog.LevelWarn:
		return "1;33"
	case l >= slog.LevelInfo:
		return "36"
	default:
		return "2"
	}
}
