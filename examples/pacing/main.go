// Command pacing sends a client more than fits into any buffer, and loses nothing.
//
// Sends never block: what a client does not take waits for it, up to Limits.BackpressureLimit, and past that messages
// are dropped. That is right for news, of which the next is worth more than the last. For an export, a replay or a
// file it is wrong, and the sender has to keep pace with the client: WaitPending blocks until the client has taken
// what was sent to it.
//
//	{"event":"authenticate"}
//	{"event":"export","data":{"rows":1000000}}
//
// The callback blocks meanwhile, which is fine: it keeps back this client's next messages and nobody else's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/hearthws/hearth"
)

type (
	nothing = struct{}
	server  = hearth.Server[nothing, nothing]
	client  = hearth.Client[nothing]
)

const (
	backpressure = 1 << 20          // what may wait for one client
	pace         = backpressure / 4 // what the export lets wait: it stays busy, and far from the limit
	maxRows      = 10_000_000
	stallTimeout = time.Minute // with a client that takes nothing at all
)

func main() {
	srv, err := newServer()
	if err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	http.Handle("/ws", srv)
	log.Print("serving ws://localhost:8080/ws")
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}

func newServer() (*server, error) {
	var srv *server
	srv, err := hearth.New(hearth.Config[nothing, nothing]{
		Limits: hearth.Limits{BackpressureLimit: backpressure},
		Authenticate: func(context.Context, hearth.AuthRequest[nothing]) (hearth.Identity[nothing], error) {
			return hearth.Identity[nothing]{}, nil
		},
		Message: func(ctx context.Context, c *client, m hearth.Message) error {
			if m.Event != "export" {
				return fmt.Errorf("unknown event %q", m.Event)
			}
			return export(ctx, srv, c, m.Data)
		},
	})
	return srv, err
}

// row is one of very many.
type row struct {
	Number int    `json:"number"`
	Text   string `json:"text"`
}

// text makes a row about half a kilobyte.
const text = "Nothing in here could be left out, and all of it has to arrive in its place: " +
	"each row follows upon the one before, and who misses a single one has to begin again. " +
	"So nobody is helped by a server that sends faster than its clients can take what it sends, " +
	"drops what does not fit, and tells them at the end how many rows there should have been. " +
	"What helps is to look, now and then, at how much the client has not taken yet, and to wait."

// export sends as many rows as the client asked for, no faster than it takes them.
func export(ctx context.Context, srv *server, c *client, request json.RawMessage) error {
	var want struct {
		Rows int `json:"rows"`
	}
	if err := json.Unmarshal(request, &want); err != nil {
		return fmt.Errorf("decode request: %w", err)
	}
	want.Rows = min(want.Rows, maxRows)
	me := hearth.ToClient(c.ID())
	for i := range want.Rows {
		err := c.Send("row", row{i, text})
		if errors.Is(err, hearth.ErrNotConnected) {
			return nil // the client has gone: nobody is waiting for the rest
		}
		if err != nil {
			return err
		}
		// Looking costs little, but not nothing: once in a few dozen rows is enough.
		if i%64 == 63 {
			if err := wait(ctx, srv, me); err != nil {
				return fmt.Errorf("client is stuck at row %d: %w", i, err)
			}
		}
	}
	return c.Send("end", want)
}

// wait lets the client catch up.
func wait(ctx context.Context, srv *server, t hearth.Target) error {
	ctx, cancel := context.WithTimeout(ctx, stallTimeout)
	defer cancel()
	return srv.Local().WaitPending(ctx, t, pace)
}
