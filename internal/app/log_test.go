package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/hearthws/hearth/internal/app"
)

// TestLogFormats writes to a bytes.Buffer, which is not a terminal: no colour, and JSON by default.
func TestLogFormats(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"auto": "{", "json": "{", "text": "INFO"} {
		var b bytes.Buffer
		app.NewLogger(app.Config{LogFormat: format}, &b, false).Info("hello", "user", "ada", "took", 1500*time.Millisecond)
		if !strings.Contains(b.String(), want) || !strings.Contains(b.String(), "1.5s") || strings.Contains(b.String(), "\x1b") {
			t.Errorf("format %s: %q", format, b.String())
		}
		if json.Valid(b.Bytes()) != (want == "{") {
			t.Errorf("format %s: %q", format, b.String())
		}
	}
}

func TestLogText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"plain", func(l *slog.Logger) { l.Info("hello") }, "INFO  hello\n"},
		{"aligned", func(l *slog.Logger) { l.Warn("hello", "user", "ada", "n", 3) }, "WARN  hello                                user=ada n=3\n"},
		{"quoted", func(l *slog.Logger) { l.Info("m", "a", "b c", "e", "", "q", `"`) }, `a="b c" e="" q="\""`},
		{"groups", func(l *slog.Logger) { l.With("x", 1).WithGroup("g").Info("m", "y", 2, slog.Group("h", "z", 3)) }, "x=1 g.y=2 g.h.z=3"},
		{"errors", func(l *slog.Logger) { l.Error("m", "error", errors.New("no way")) }, `error="no way"`},
		{"durations", func(l *slog.Logger) { l.Info("m", "took", 1500*time.Millisecond) }, "took=1.5s"},
		{"escape sequences do not reach the terminal", func(l *slog.Logger) { l.Info("a\x1b[2Jb", "user", "\x1b[31mred\nfake") }, `user="\x1b[31mred\nfake"`},
		{"below the level", func(l *slog.Logger) { l.Debug("quiet") }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			tt.log(app.NewLogger(app.Config{LogFormat: "text"}, &b, false).Logger)
			if !strings.Contains(b.String(), tt.want) || strings.Contains(b.String(), "\x1b") || strings.Count(b.String(), "\n") > 1 {
				t.Errorf("%q, want %q in it", b.String(), tt.want)
			}
			if tt.want == "" && b.Len() > 0 {
				t.Errorf("logged %q", b.String())
			}
		})
	}
}

// TestLogTextHandler checks the handler with the test suite of the standard library.
func TestLogTextHandler(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	h := app.NewLogger(app.Config{LogFormat: "text"}, &b, true).Handler()
	parse := func() []map[string]any {
		var records []map[string]any
		for line := range strings.Lines(b.String()) {
			records = append(records, parseLine(line))
		}
		return records
	}
	if err := slogtest.TestHandler(h, parse); err != nil {
		t.Error(err)
	}
}

// parseLine parses a line of the handler. No value in the suite contains a space.
func parseLine(line string) map[string]any {
	m := map[string]any{}
	fields := strings.Fields(line)
	if strings.Contains(fields[0], ":") {
		m[slog.TimeKey], fields = fields[0], fields[1:]
	}
	m[slog.LevelKey], m[slog.MessageKey] = fields[0], fields[1]
	for _, f := range fields[2:] {
		key, value, _ := strings.Cut(f, "=")
		at := m
		parts := strings.Split(key, ".")
		for _, g := range parts[:len(parts)-1] {
			if _, ok := at[g]; !ok {
				at[g] = map[string]any{}
			}
			at = at[g].(map[string]any)
		}
		at[parts[len(parts)-1]] = value
	}
	return m
}

func TestLogLinesStayWhole(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer // guarded by the lock of the handler
	l := app.NewLogger(app.Config{LogFormat: "text"}, &b, true)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				l.With("a", 1).LogAttrs(context.Background(), slog.LevelInfo, "line", slog.Int("b", 2))
			}
		})
	}
	wg.Wait()
	for line := range strings.Lines(b.String()) {
		if !strings.HasSuffix(line, " a=1 b=2\n") {
			t.Fatalf("line %q", line)
		}
	}
}
