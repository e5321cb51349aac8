package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
)

// A stormClient connects, loses its connection and resumes, again and again. One goroutine uses it.
type stormClient struct {
	peer   *peer
	ticket string
}

// step takes messages until the client is connected and has a ticket. It returns false if the
// server has closed the connection, or has rejected the ticket.
func (c *stormClient) step() bool {
	for {
		got, ok := c.peer.in.take(answer)
		if !ok || got.err != nil || got.code != 0 {
			return false
		}
		var m struct {
			Event string
			Data  struct{ ID, Code, Ticket string }
		}
		_ = json.Unmarshal([]byte(got.text), &m)
		switch m.Event {
		case "connected":
			c.peer.id = m.Data.ID
		case "hearth:ticket":
			c.ticket = m.Data.Ticket
			return true
		case "error":
			if m.Data.Code == "ticket_rejected" {
				c.ticket = ""
				return false
			}
		}
	}
}

// TestResumeStorm resumes many sessions on two servers at random, often with old connections that
// are still open. No two clients have one id, and the callbacks of each server alternate. With a
// grace, the end of each session is reported once its client does not return.
func TestResumeStorm(t *testing.T) {
	t.Parallel()
	for name, grace := range map[string]time.Duration{"without grace": 0, "with grace": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resumeStorm(t, grace)
		})
	}
}

func resumeStorm(t *testing.T, grace time.Duration) {
	var present sync.Map // the ids of clients, for an application with all servers
	bus := memory.NewBus(memory.Config{})
	var servers [2]*rig
	for i := range servers {
		var mu sync.Mutex
		online := map[string]int{}
		change := func(c *client, by int) {
			mu.Lock()
			defer mu.Unlock()
			if online[c.ID()] += by; online[c.ID()] < 0 || online[c.ID()] > 1 {
				t.Errorf("server %d: %d clients with the id %s", i, online[c.ID()], c.ID())
			}
		}
		servers[i] = start(t, resumable(config{
			Broker: bus.Broker(), Loops: 2, Resume: hearth.Resume{Grace: grace},
			Connected: func(_ context.Context, c *client) {
				change(c, 1)
				present.Store(c.ID(), true)
			},
			Disconnected: func(_ context.Context, c *client, _ int, _ string) {
				change(c, -1)
				if !c.Moved() {
					present.Delete(c.ID())
				}
			},
			Joined:  func(context.Context, *client, string) {},
			Message: func(_ context.Context, c *client, m hearth.Message) error { return c.Send(m.Event, m.Data) },
		}))
	}
	for _, r := range servers {
		r.counts(func(s hearth.Stats) bool { return s.Nodes == 2 })
	}
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() { // ends after its rounds
			random := rand.New(rand.NewPCG(uint64(i), 1))
			var c stormClient
			for range rounds {
				old := c.peer
				conn, err := servers[random.IntN(2)].dial()
				if err != nil {
					t.Error(err)
					return
				}
				w, err := upgrade(conn)
				if err != nil {
					t.Error(err)
					return
				}
				if old != nil && random.IntN(2) == 0 {
					old.hangUp()
				}
				c.peer = newPeer(t, w)
				first := c.ticket == ""
				if first {
					_ = w.send(opText, []byte(`{"event":"authenticate","data":{"as":"u"},"hearth":{"version":1,"features":["resume"]}}`))
				} else {
					c.peer.resume(c.ticket)
				}
				if random.IntN(8) == 0 { // perhaps between the claim and the admission
					pass(time.Duration(random.IntN(1000)) * time.Microsecond)
					c.peer.hangUp()
					c.peer, c.ticket = nil, ""
					continue
				}
				if !c.step() {
					c.peer.hangUp()
					continue
				}
				if old != nil && !first && c.peer.id != old.id {
					t.Errorf("resumed as %s, not %s", c.peer.id, old.id)
				}
				_ = w.send(opText, fmt.Appendf(nil, `{"event":"join","data":{"rooms":["r%d"]}}`, random.IntN(5)))
				_ = w.send(opText, []byte(`{"event":"echo","data":1}`))
				if random.IntN(4) == 0 {
					if n, err := servers[0].Count(t.Context(), hearth.ToClient(c.peer.id)); n != 1 || err != nil {
						t.Errorf("%d clients with the id of a client that has just resumed (%v)", n, err)
					}
				}
			}
		})
	}
	all.Wait()
	var accepted, rejected uint64
	for _, r := range servers {
		s := r.Stats().Tickets
		accepted += s.Accepted
		rejected += s.Invalid + s.Expired + s.Used + s.Revoked + s.Unavailable
	}
	if accepted == 0 || rejected > accepted/10 {
		t.Errorf("%d tickets were accepted, %d rejected", accepted, rejected)
	}
	for _, r := range servers {
		must(t, r.Shutdown(t.Context()))
	}
	present.Range(func(id, _ any) bool {
		t.Errorf("the end of %s was not reported", id)
		return true
	})
}
