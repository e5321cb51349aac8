package hub_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a member with a link that records what was written. Its fields belong to the goroutine
// that calls Tick.
type client struct {
	hub.Member
	name string // in the tests

	got      []byte // frames, one after the other
	kept     int    // how many bytes of got were written to the socket, for Recall
	room     int    // how many bytes the link still accepts; negative for any number
	finished bool
	gone     bool // the link rejects everything, like a closed one

	dropClosed bool // the owner closes the client when messages are dropped

	buffered     atomic.Int64
	awaited      int // buffered must fall below this
	dropped      int
	closeDelayed int
	unsealed     atomic.Int64 // any goroutine
}

func (c *client) Write(p []byte) bool {
	if c.Closing() || (c.room >= 0 && len(p) > c.room) {
		return false
	}
	if c.room >= 0 {
		c.room -= len(p)
	}
	c.got = append(c.got, p...)
	return true
}

func (c *client) WriteNow(p []byte) bool   { return c.Write(p) }
func (c *client) CloseAfterFlush(p []byte) { c.got, c.finished = append(c.got, p...), true }
func (c *client) Recall(cut func([]byte, int) int) [][]byte {
	end := 0
	if c.kept > 0 {
		end = cut(c.got, c.kept)
	}
	back := bytes.Clone(c.got[end:])
	c.got = c.got[:end]
	return [][]byte{back}
}
func (c *client) NotifyBelow(n int) bool {
	if c.Buffered() < n {
		return false
	}
	c.awaited = n
	return true
}
func (c *client) Closing() bool { return c.finished || c.gone }
func (c *client) Buffered() int { return int(c.buffered.Load()) }
func (c *client) Dropped(n int) bool {
	c.dropped += n
	return c.dropClosed
}
func (c *client) CloseDelayed()  { c.closeDelayed++ }
func (c *client) Unsealed(error) { c.unsealed.Add(1) }

// drain simulates that the peer takes all bytes except that many.
func (c *client) drain(left int) {
	c.buffered.Store(int64(left))
	if left < c.awaited {
		c.awaited = 0
		c.Drained()
	}
}

// events returns the names of the events that the client got, in order. Other frames are named by
// their opcode.
func (c *client) events() []string {
	var in inbox
	end := ws.NewEndpoint(ws.Client, 1<<20, c.Deflate)
	if err := end.Feed(bytes.Clone(c.got), &in); err != nil {
		in.events = append(in.events, "not a frame: "+err.Error())
	}
	return in.events
}

type inbox struct{ events []string }

func (in *inbox) Message(_ ws.Opcode, payload []byte) {
	var e struct{ Event string }
	if err := json.Unmarshal(payload, &e); err != nil {
		e.Event = "not JSON: " + string(payload)
	}
	in.events = append(in.events, e.Event)
}
func (in *inbox) Ping([]byte)              { in.events = append(in.events, "ping") }
func (in *inbox) Pong([]byte)              { in.events = append(in.events, "pong") }
func (in *inbox) Close(code int, _ string) { in.events = append(in.events, fmt.Sprint("close ", code)) }

func message(event string) *ws.Message {
	return ws.NewMessage(protocol.AppendEvent(nil, event, []byte(`"`+strings.Repeat("x", 20)+`"`)))
}

// series returns messages with these events as one series.
func series(events ...string) *ws.Message {
	return ws.BuildSeries(len(events), 0, func(dst []byte, i int) []byte {
		return append(dst, message(events[i]).Payload()...)
	})
}

// newHub makes a hub whose lanes take turns only in the test.
func newHub(lanes int, cfg hub.Config) *hub.Hub {
	cfg.Lanes = lanes
	if cfg.Wake == nil {
		cfg.Wake = func(int) {}
	}
	return hub.New(cfg)
}

// idOf returns the id of the client with that name in the tests. It is as random as real ids.
func idOf(name string) hub.ID { return hub.ID(uuid.NewSHA1(uuid.Nil, []byte(name))) }

// connect makes a client that is not admitted yet.
func connect(h *hub.Hub, name string, lane int) *client {
	c := &client{room: -1, name: name}
	c.Init(idOf(name), c, h.Lane(lane), c)
	return c
}

// admit makes an authenticated client.
func admit(h *hub.Hub, name string, lane int, user string, rooms ...string) *client {
	c := connect(h, name, lane)
	h.Admit(&c.Member, hub.Admission{User: user, Rooms: rooms, Welcome: message("connected")})
	return c
}

// settle gives all lanes turns until no work is left.
func settle(h *hub.Hub, lanes int) {
	for i := range lanes {
		for h.Lane(i).Tick() {
		}
	}
}

func toRoom(name string) hub.Target { return hub.Target{Kind: hub.Room, Name: name} }
func toUser(id string) hub.Target   { return hub.Target{Kind: hub.User, Name: id} }
func toClient(name string) hub.Target {
	return hub.Target{Kind: hub.Client, Name: idOf(name).String()}
}
func toAll() hub.Target { return hub.Target{Kind: hub.All} }
