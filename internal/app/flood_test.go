package app_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// lockedBuffer is a bytes.Buffer that is safe for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestClientsDoNotFillTheLog checks that many connects, disconnects, rejections and failing
// callbacks do not fill the log.
func TestClientsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := serveTo(t, nil, slog.New(slog.NewJSONHandler(&log, nil)))
	before, began := strings.Count(log.String(), "\n"), time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for i := range 200 {
		header := http.Header{}
		if i%4 == 0 {
			header.Set("Origin", "https://evil.example")
		}
		c, resp, err := websocket.Dial(ctx, s.ws(), &websocket.DialOptions{HTTPHeader: header})
		if i%4 == 0 {
			if err == nil || resp.StatusCode != http.StatusForbidden {
				t.Fatalf("foreign origin: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		name := "ada"
		if i%4 == 1 {
			name = ""
		}
		for _, m := range []string{`{"event":"authenticate","data":{"name":"` + name + `"}}`, `{"event":"rooms"}`, `{"event":"rooms"}`} {
			_ = c.Write(ctx, websocket.MessageText, []byte(m))
		}
		_, _, _ = c.Read(ctx)
		_ = c.CloseNow()
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	got := strings.Count(log.String(), "\n") - before
	if most := 20 + 4*int(time.Since(began)/time.Second); got > most {
		t.Errorf("%d lines, want at most %d:\n%s", got, most, log.String())
	}
	if !strings.Contains(log.String(), `"suppressed":`) {
		t.Error("the log does not say how many lines were suppressed")
	}
}
