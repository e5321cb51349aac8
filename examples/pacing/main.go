// Command pacing sends a client more than fits into any buffer, without losing messages.
//
// Sends never block: messages for a slow client are queued, up to Limits.BackpressureLimit, and
// dropped beyond that. This suits news, where the next message matters more than the last. For an
// export, a replay or a file, the sender must keep pace with the client: WaitPending blocks until
// the client has received enough of the queue.
//
//	{"event":"authenticate"}
//	{"event":"export","data":{"rows":1000000}}
//
// The callback blocks meanwhile. This delays only the next messages of the same client.
package main

import (
	"context"
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
	backpressure = 1 << 20 // bytes that may be queued for a client
	// bytes that the export keeps queued: busy, and far from the limit
	pace         = backpressure / 4
	maxRows      = 10_000_000
	stallTimeout = time.Minute // for a client that receives nothing
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
	srv, err := hearth.New(hearth.Config[nothing, nothing]{
		Limits: hearth.Limits{BackpressureLimit: backpressure},
		Authenticate: func(context.Context, hearth.AuthRequest[nothing]) (hearth.Identity[nothing], error) {
			return hearth.Identity[nothing]{}, nil
		},
	})
	if err != nil {
		return nil, err
	}
	hearth.Handle(srv, "export", func(ctx context.Context, c *client, want request) error {
		return export(ctx, srv, c, want)
	})
	return srv, nil
}

// row is one of many rows.
type row struct {
	Number int    `json:"number"`
	Text   string `json:"text"`
}

// text makes a row about half a kilobyte long.
const text = "An export has to be complete and in order, because each row depends on the one before it, " +
	"and a client that misses one row has to start again. " +
	"A server that sends faster than its clients can receive does not help: the queue of the client grows to its limit, " +
	"messages beyond that are dropped, and the client learns only at the end how many rows are missing. " +
	"So the sender checks from time to time how much is still queued for the client, and waits if it is too much."

// request is the data of an export.
type request struct {
	Rows int `json:"rows"`
}

// export sends the requested number of rows, no faster than the client receives them.
func export(ctx context.Context, srv *server, c *client, want request) error {
	want.Rows = min(want.Rows, maxRows)
	me := hearth.ToClient(c.ID())
	for i := range want.Rows {
		err := c.Send("row", row{i, text})
		if errors.Is(err, hearth.ErrNotConnected) {
			return nil // the client has disconnected
		}
		if err != nil {
			return err
		}
		// The check has a small cost: once in 64 rows is enough.
		if i%64 == 63 {
			if err := wait(ctx, srv, me); err != nil {
				return fmt.Errorf("client stopped receiving at row %d: %w", i, err)
			}
		}
	}
	return c.Send("end", want)
}

// wait blocks until the client has caught up.
func wait(ctx context.Context, srv *server, t hearth.Target) error {
	ctx, cancel := context.WithTimeout(ctx, stallTimeout)
	defer cancel()
	return srv.Local().WaitPending(ctx, t, pace)
}
