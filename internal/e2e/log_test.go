package e2e_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/protocol"
)

// logbook is a slog.Handler that counts the lines at INFO and above, and the number of suppressed
// lines that they report.
type logbook struct {
	mu         sync.Mutex
	lines      map[string]int // by message
	suppressed map[string]int
	last       map[string]map[string]string // the attributes of the last line
}

func newLogbook() *logbook {
	return &logbook{lines: map[string]int{}, suppressed: map[string]int{}, last: map[string]map[string]string{}}
}

func (l *logbook) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l *logbook) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *logbook) WithGroup(string) slog.Handler                    { return l }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines[r.Message]++
	l.last[r.Message] = map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "suppressed" {
			l.suppressed[r.Message] += int(a.Value.Uint64())
		}
		l.last[r.Message][a.Key] = a.Value.String()
		return true
	})
	return nil
}

// count returns how many lines with text in their message were logged, and how many were
// suppressed.
func (l *logbook) count(text string) (lines, suppressed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for message, n := range l.lines {
		if strings.Contains(message, text) {
			lines += n
			suppressed += l.suppressed[message]
		}
	}
	return lines, suppressed
}

// attr returns an attribute of the last line with that message.
func (l *logbook) attr(message, key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[message][key]
}

// TestLogFlood checks that clients cannot flood the log, and that the log says how many lines it
// suppressed.
func TestLogFlood(t *testing.T) {
	t.Parallel()
	const messages = 5000
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("no") },
		"panic": func() error { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			book := newLogbook()
			r := start(t, config{
				Logger:  slog.New(book),
				Message: func(context.Context, *client, hearth.Message) error { return fail() },
			})
			began := time.Now()
			p := r.member("u")
			for range messages {
				p.say("x", "1")
			}
			p.bye(1000, "")
			p.wantsClose(1000, "")
			must(t, r.Shutdown(t.Context()))
			allowed := 10 + int(time.Since(began)/time.Second)
			lines, suppressed := book.count("callback failed")
			if lines > allowed || lines+suppressed != messages {
				t.Errorf("%d lines and %d suppressed for %d failures", lines, suppressed, messages)
			}
			if n := r.Stats().CallbackErrors; n != messages {
				t.Errorf("%d failures were counted", n)
			}
		})
	}
}

// TestLogDisconnected checks that sending to a client that has disconnected does not count as a
// failure of the callback.
func TestLogDisconnected(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		book := newLogbook()
		sent := make(chan error, 1)
		r := start(t, config{
			Transport: transport,
			Logger:    slog.New(book),
			Message: func(_ context.Context, c *client, m hearth.Message) error {
				for c.State() != protocol.StateDisconnected {
					runtime.Gosched()
				}
				err := c.Send("answer", 1)
				sent <- err
				return err
			},
		})
		p := r.member("u")
		p.say("x", "1")
		conn := p.wire.(*rawWire).conn.(*net.TCPConn)
		must(t, conn.SetLinger(0))
		conn.Close()
		if err := <-sent; !errors.Is(err, hearth.ErrNotConnected) {
			t.Errorf("send: %v", err)
		}
		must(t, r.Shutdown(t.Context()))
		if lines, _ := book.count(""); lines != 0 {
			t.Errorf("logged: %v", book.last)
		}
		if n := r.Stats().CallbackErrors; n != 0 {
			t.Errorf("%d failures were counted", n)
		}
	})
}
