//go:build unix

package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth/internal/cli"
	"github.com/hearthws/hearth/internal/test/redistest"
)

// resumeKey is a key for tickets.
const resumeKey = "czNjcmV0czNjcmV0czNjcmV0czNjcmV0czNjcmV0MDA="

// A ticketClient is a client that keeps its newest ticket. One goroutine uses it.
type ticketClient struct {
	conn   *websocket.Conn
	id     string
	ticket string
}

// connect authenticates with what is in the JSON member hearth, and takes the first ticket. It
// returns the rooms of a client that has resumed.
func (c *ticketClient) connect(ctx context.Context, url, data, hearth string) (resumed []string, err error) {
	if c.conn, _, err = websocket.Dial(ctx, strings.Replace(url, "http", "ws", 1)+"ws", nil); err != nil {
		return nil, err
	}
	c.conn.SetReadLimit(1 << 20)
	message := fmt.Sprintf(`{"event":"authenticate","data":%s,"hearth":{"version":1,"features":["resume"]%s}}`, data, hearth)
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		return nil, err
	}
	_, b, err := c.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	var connected struct {
		Event  string
		Data   struct{ ID string }
		Hearth struct {
			Resumed struct{ Joined []struct{ Room string } }
		}
	}
	if err := json.Unmarshal(b, &connected); err != nil || connected.Event != "connected" {
		return nil, fmt.Errorf("got %s (%w)", b, err)
	}
	c.id = connected.Data.ID
	for _, j := range connected.Hearth.Resumed.Joined {
		resumed = append(resumed, j.Room)
	}
	for c.ticket = ""; c.ticket == ""; {
		if err := c.read(ctx); err != nil {
			return nil, err
		}
	}
	return resumed, nil
}

// read reads a message, and keeps the ticket in it.
func (c *ticketClient) read(ctx context.Context) error {
	_, b, err := c.conn.Read(ctx)
	if err != nil {
		return err
	}
	var m struct{ Data struct{ Ticket string } }
	if json.Unmarshal(b, &m) == nil && m.Data.Ticket != "" {
		c.ticket = m.Data.Ticket
	}
	return nil
}

// lose reads until the connection ends, and returns the close code, or -1 if there was none.
func (c *ticketClient) lose(ctx context.Context) int {
	for {
		if err := c.read(ctx); err != nil {
			c.conn.CloseNow()
			return int(websocket.CloseStatus(err))
		}
	}
}

// TestServeResume stops or kills a server. Its clients resume on another one, which has not seen
// them before.
func TestServeResume(t *testing.T) {
	t.Parallel()
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 1012, syscall.SIGKILL: -1} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			db := redistest.Start(t)
			keys := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(keys, []byte(resumeKey+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"--redis", db.URL(), "--resume", "--resume-key-file", keys, "--drain", "1s", "--shutdown-timeout", "10s"}
			one, two := start(t, args...), start(t, args...)
			for _, p := range []*process{one, two} {
				if !p.met {
					p.until(met)
				}
			}
			var clients [20]ticketClient
			for i := range clients {
				if _, err := clients[i].connect(ctx, one.url, `{"name":"ada"}`, ""); err != nil {
					t.Fatal(err)
				}
			}
			one.signal(sig)
			var done sync.WaitGroup
			for i := range clients {
				done.Go(func() { // ends with ctx at the latest
					c := &clients[i]
					id := c.id
					if got := c.lose(ctx); got != code {
						t.Errorf("closed with %d, want %d", got, code)
					}
					rooms, err := c.connect(ctx, two.url, "null", fmt.Sprintf(`,"ticket":%q`, c.ticket))
					if err != nil || c.id != id || len(rooms) != 3 {
						t.Errorf("resumed as %s in %v (%v), want %s", c.id, rooms, err, id)
					}
				})
			}
			done.Wait()
			for i := range clients {
				clients[i].conn.CloseNow()
			}
			two.signal(syscall.SIGTERM)
			if got := two.wait(); got != cli.ExitOK {
				t.Errorf("exit code %d", got)
			}
		})
	}
}
