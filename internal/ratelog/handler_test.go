package ratelog_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/ratelog"
)

// output collects what a logger writes, without the time.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// take returns the lines that have been written since the last call.
func (o *output) take() string {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.b.Reset()
	return o.b.String()
}

func newLogger() (*slog.Logger, *ratelog.Handler, *output) {
	out := &output{}
	h := ratelog.NewHandler(slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	return slog.New(h), h, out
}

func wants(t *testing.T, out *output, want string) {
	t.Helper()
	if got := out.take(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestHandlerFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, h, out := newLogger()
		defer h.Close()
		flood := func(d time.Duration) {
			for range d / time.Millisecond {
				log.Error("failed", "n", time.Now().Nanosecond()/1e6)
				time.Sleep(time.Millisecond)
			}
		}
		log.Error("failed", "n", "first")
		wants(t, out, "level=ERROR msg=failed n=first\n")
		time.Sleep(time.Millisecond / 2) // no line at the moment when one becomes due
		flood(30 * time.Second)
		var left []int
		for line := range strings.Lines(out.take()) {
			var n, suppressed int
			_, err := fmt.Sscanf(line, "level=ERROR msg=failed n=%d suppressed=%d\n", &n, &suppressed)
			if err != nil {
				t.Errorf("%q: %v", line, err)
			}
			left = append(left, suppressed)
		}
		// Written after 1, 3, 7, 15 and 23 seconds.
		if want := []int{999, 1999, 3999, 7999, 7999}; !slices.Equal(left, want) {
			t.Errorf("suppressed %v, want %v", left, want)
		}
		time.Sleep(time.Hour)
		if got := out.take(); strings.Count(got, "\n") != 1 {
			t.Errorf("after the flood: %q", got)
		}
		log.Error("failed", "n", 1) // at once
		log.Error("failed", "n", 2) // a second later
		wants(t, out, "level=ERROR msg=failed n=1\n")
		time.Sleep(ratelog.MinInterval)
		wants(t, out, "level=ERROR msg=failed n=2\n")
	})
}

// TestHandlerSteady checks that rare lines are all written, at once.
func TestHandlerSteady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, h, out := newLogger()
		defer h.Close()
		for i := range 20 {
			log.Info("seldom", "n", i)
			wants(t, out, fmt.Sprintf("level=INFO msg=seldom n=%d\n", i))
			time.Sleep(ratelog.MinInterval)
		}
	})
}

// TestHandlerKinds checks that each message and level has a limit of its own, that debug lines have
// none, and that derived loggers share the limits.
func TestHandlerKinds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, h, out := newLogger()
		for i := range 50 {
			log.Debug("d", "n", i)
		}
		if n := strings.Count(out.take(), "\n"); n != 50 {
			t.Errorf("%d debug lines", n)
		}
		log.With("a", 1).WithGroup("g").Warn("w", "n", 1)
		log.Warn("w")
		log.Error("w")
		log.Warn("other")
		wants(t, out, "level=WARN msg=w a=1 g.n=1\nlevel=ERROR msg=w\nlevel=WARN msg=other\n")
		log.With("a", 2).Warn("w")
		h.Close()
		wants(t, out, "level=WARN msg=w a=2 suppressed=1\n")
		log.Warn("w") // dropped: the limit holds, and no timer may be left
		time.Sleep(time.Hour)
		wants(t, out, "")
	})
}

// TestHandlerConcurrent checks that the count includes every one of many simultaneous lines.
func TestHandlerConcurrent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const events = 1000
		log, h, out := newLogger()
		var all sync.WaitGroup
		for range events {
			all.Go(func() { log.Error("failed") })
		}
		all.Wait()
		h.Close()
		wants(t, out, fmt.Sprintf("level=ERROR msg=failed\nlevel=ERROR msg=failed suppressed=%d\n", events-2))
	})
}
