package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/client"
	"github.com/hearthws/hearth/internal/test/behaviour"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type login = behaviour.Login

// newWorld makes a world with a server.
func newWorld(t testing.TB, cfg behaviour.Config) *behaviour.World {
	t.Helper()
	w := emptyWorld(t)
	must(t, w.Start(cfg))
	return w
}

// emptyWorld makes a world without a server.
func emptyWorld(t testing.TB) *behaviour.World {
	t.Helper()
	w := behaviour.New()
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("close the world: %v", err)
		}
	})
	return w
}

// do performs a step of the server: JSON without the outer brackets.
func do(t testing.TB, w *behaviour.World, step string) {
	t.Helper()
	must(t, w.Do(t.Context(), parse(t, "["+step+"]")))
}

// newClient makes a client in w, which is closed when the test ends.
func newClient(t testing.TB, w *behaviour.World, cfg client.Config) *client.Client {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return w.Dial(ctx) }}
	cfg.URL, cfg.HTTPClient = "ws://server/ws", &http.Client{Transport: tr}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		<-c.Done()
		tr.CloseIdleConnections()
	})
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bubble runs f with a fake clock.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// journal collects what callbacks report, as text.
type journal struct{ lines chan string }

func newJournal() *journal { return &journal{make(chan string, 100_000)} }

func (j *journal) add(format string, args ...any) { j.lines <- fmt.Sprintf(format, args...) }

// wants takes the next lines.
func (j *journal) wants(t testing.TB, lines ...string) {
	t.Helper()
	for i, want := range lines {
		select {
		case got := <-j.lines:
			if got != want {
				t.Fatalf("line %d: got %q, want %q", i, got, want)
			}
		case <-time.After(time.Hour):
			t.Fatalf("line %d: nothing, want %q", i, want)
		}
	}
}

// empty fails if there are more lines.
func (j *journal) empty(t testing.TB) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-j.lines:
		t.Fatalf("got %q, want nothing", got)
	default:
	}
}

// state is a Config.OnState.
func (j *journal) state(s client.State) {
	text := s.Phase.String()
	if s.UserID != "" {
		text += " as " + s.UserID
	}
	if e, ok := errors.AsType[*client.CloseError](s.Err); ok {
		text += fmt.Sprint(" ", e.Code)
	} else if s.Err != nil {
		text += ": " + s.Err.Error()
	}
	if s.Encrypted {
		text += ", encrypted"
	}
	if s.Resumed {
		text += ", resumed"
	}
	j.add("%s", text)
}

// room adds a Changed to cfg that reports.
func (j *journal) room(name string, cfg client.RoomConfig) client.RoomConfig {
	cfg.Changed = func(s client.RoomStatus) {
		text := name + " " + s.State.String()
		if s.Recovered > 0 {
			text += fmt.Sprint(" ", s.Recovered)
		}
		if s.Unrecovered != "" {
			text += " unrecovered " + s.Unrecovered
		}
		if s.Err != nil {
			text += ": " + s.Err.Error()
		}
		j.add("%s", text)
	}
	return cfg
}
