package ratelog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// MinInterval is the shortest time between two lines with the same message. It doubles, up to
	// MaxInterval, as long as more of them come than may be written.
	MinInterval = time.Second
	MaxInterval = 8 * time.Second

	// Suppressed is the key of the attribute that counts the lines left out since the one before.
	Suppressed = "suppressed"
)

// Handler is a slog.Handler that limits how often another handler writes the same line, so that no
// client decides how much is logged. Lines are the same if their level and message are. The first
// is written at once. Of those that follow within MinInterval, the latest is written at its end,
// with the number of the others in its attribute Suppressed.
//
// Lines below slog.LevelInfo are not limited, because debugging needs all of them. Messages must be
// constants, since the handler remembers each.
//
// Safe for concurrent use. Handlers made by WithAttrs and WithGroup share one limit.
type Handler struct {
	next  slog.Handler
	limit *limit
}

// limit is the state of a handler and of all that were derived from it.
type limit struct {
	mu     sync.Mutex // guards the fields below; not held while a line is written
	lines  map[key]*line
	closed bool
}

type key struct {
	level   slog.Level
	message string
}

// A line is what is known of all lines with the same key. Guarded by limit.mu.
type line struct {
	free       time.Time     // when the next may be written
	interval   time.Duration // from the last one to free
	suppressed uint64        // lines since the one written last
	last       slog.Record   // the latest of them
	next       slog.Handler  // that last is for
	timer      *time.Timer   // writes last; nil until first needed
}

// NewHandler makes a handler that writes to next. Close it when no more lines are expected.
func NewHandler(next slog.Handler) *Handler {
	return &Handler{next: next, limit: &limit{lines: make(map[key]*line)}}
}

// Enabled reports whether lines of the level are written at all.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle writes the record, or keeps it until it may be written.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && h.limit.suppress(r, h.next) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs returns a handler whose lines have the attributes.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{next: h.next.WithAttrs(attrs), limit: h.limit}
}

// WithGroup returns a handler whose lines have their attributes in the group.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{next: h.next.WithGroup(name), limit: h.limit}
}

// Close writes what waits. Lines beyond the limit are dropped from then on, and no timer is left.
func (h *Handler) Close() {
	l := h.limit
	l.mu.Lock()
	l.closed = true
	var waiting []*line
	for _, ln := range l.lines {
		if ln.timer != nil {
			ln.timer.Stop()
		}
		waiting = append(waiting, ln)
	}
	l.mu.Unlock()
	for _, ln := range waiting {
		l.write(ln)
	}
}

// suppress reports whether a line is too much. Then it is kept for later.
func (l *limit) suppress(r slog.Record, next slog.Handler) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := key{r.Level, r.Message}
	ln := l.lines[k]
	if ln == nil {
		ln = &line{}
		l.lines[k] = ln
	}
	wait := ln.free.Sub(now)
	if ln.suppressed == 0 && wait <= 0 {
		if now.Sub(ln.free) >= ln.interval {
			ln.interval = MinInterval
		}
		ln.free = now.Add(ln.interval)
		return false
	}
	ln.suppressed++
	ln.last, ln.next = r.Clone(), next
	if ln.suppressed > 1 || l.closed {
		return true // the timer runs, or must not
	}
	if ln.timer == nil {
		ln.timer = time.AfterFunc(wait, func() { l.write(ln) })
	} else {
		ln.timer.Reset(wait)
	}
	return true
}

// write writes the latest of the lines that were suppressed, if there are any.
func (l *limit) write(ln *line) {
	l.mu.Lock()
	if ln.suppressed == 0 {
		l.mu.Unlock()
		return
	}
	r, next, others := ln.last, ln.next, ln.suppressed-1
	ln.suppressed, ln.last, ln.next = 0, slog.Record{}, nil
	if others > 0 {
		ln.interval = min(2*ln.interval, MaxInterval)
	}
	ln.free = time.Now().Add(ln.interval)
	l.mu.Unlock()
	if others > 0 {
		r.AddAttrs(slog.Uint64(Suppressed, others))
	}
	// Like log/slog, ignore the error: there is no way to report it.
	_ = next.Handle(context.Background(), r)
}
