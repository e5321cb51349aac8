package history_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"unsafe"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/protocol"
)

const roomName = "chat"

// A roomLog has the log of one room.
type roomLog struct {
	broker.Broker // nil: only the methods below are called

	mu     sync.Mutex // guards the fields below
	epoch  int
	top    uint64
	kept   []protocol.Message
	err    error // of reads
	reads  int
	onRead func() // called with mu unlocked, after the read
}

var _ broker.History = (*roomLog)(nil)

func (h *roomLog) KeepsHistory() bool { return true }

func (h *roomLog) HasHistory(room string) bool { return room == roomName }

func (h *roomLog) RemoveHistory(context.Context, string) error { return nil }

func (h *roomLog) ReadHistory(_ context.Context, requests ...broker.HistoryRequest) ([]broker.HistoryPart, error) {
	h.mu.Lock()
	h.reads++
	var parts []broker.HistoryPart
	for _, q := range requests {
		parts = append(parts, h.partLocked(q))
	}
	err, onRead := h.err, h.onRead
	h.mu.Unlock()
	if onRead != nil {
		onRead()
	}
	if err != nil {
		return nil, err
	}
	return parts, nil
}

func (h *roomLog) partLocked(q broker.HistoryRequest) broker.HistoryPart {
	part := broker.HistoryPart{Position: h.positionLocked()}
	if q.After == (protocol.Position{}) {
		part.Messages = slices.Clone(h.kept[len(h.kept)-min(q.Limit, len(h.kept)):])
		return part
	}
	missed := h.top - q.After.Offset
	switch {
	case q.After.Epoch != part.Position.Epoch || q.After.Offset > h.top:
		part.Unrecovered = protocol.UnrecoveredReset
	case missed > uint64(q.Limit):
		part.Unrecovered = protocol.UnrecoveredLimit
	case missed > uint64(len(h.kept)):
		part.Unrecovered = protocol.UnrecoveredEvicted
	default:
		part.Messages = slices.Clone(h.kept[len(h.kept)-int(missed):])
	}
	return part
}

func (h *roomLog) positionLocked() protocol.Position {
	return protocol.Position{Offset: h.top, Epoch: "e" + strconv.Itoa(h.epoch)}
}

func (h *roomLog) position() protocol.Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.positionLocked()
}

// publish adds n messages and returns them.
func (h *roomLog) publish(n int) []protocol.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range n {
		h.top++
		h.kept = append(h.kept, protocol.Message{ServerID: "s", Type: protocol.TypeRoom, Target: roomName, Event: "e", Position: h.positionLocked()})
	}
	return slices.Clone(h.kept[len(h.kept)-n:])
}

// evict keeps the newest n messages only.
func (h *roomLog) evict(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = slices.Clone(h.kept[len(h.kept)-min(n, len(h.kept)):])
}

// remove begins a new log.
func (h *roomLog) remove() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch++
	h.top, h.kept = 0, nil
}

func (h *roomLog) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

func (h *roomLog) countReads() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads
}

// A world has one node with its clients in one room.
type world struct {
	*testing.T
	*roomLog
	*history.Rooms

	mu      sync.Mutex // guards the fields below and the clients
	members []*client
	losses  int
	sendErr error
	fits    int // messages that Send sends at a time if it fails
}

// A client checks that the messages arrive without gaps and duplicates.
type client struct {
	w           *world
	positions   bool
	at          protocol.Position // zero until the first message or answer
	got         int
	interrupted bool
	unrecovered string
	held        bool
	wrong       string // the first violation
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, roomLog: &roomLog{}}
	w.Rooms = history.New(w.config(w.roomLog))
	return w
}

func (w *world) config(h broker.History) history.Config {
	return history.Config{
		History: h, Send: w.send, Interrupt: w.interrupt, Log: slog.New(slog.DiscardHandler),
		Lost: func(broker.Loss) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.losses++
		},
	}
}

func (w *world) send(_ string, ms []protocol.Message) (sent int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sendErr != nil && w.fits > 0 {
		ms = ms[:min(w.fits, len(ms))]
	}
	for _, c := range w.members {
		c.receive(ms)
	}
	return len(ms), w.sendErr
}

func (w *world) interrupt(string) (clients int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members = slices.DeleteFunc(w.members, func(c *client) bool {
		if c.positions {
			c.interrupted, c.held = true, false
			clients++
		}
		return c.positions
	})
	return clients
}

// receive is called with w.mu held.
func (c *client) receive(ms []protocol.Message) {
	for _, m := range ms {
		if follows := m.Position.Epoch == c.at.Epoch && m.Position.Offset == c.at.Offset+1; c.positions && c.at != (protocol.Position{}) && !follows && c.wrong == "" {
			c.wrong = "message at " + text(m.Position) + " after " + text(c.at)
		}
		c.at = m.Clone().Position
		c.got++
	}
}

// Deliver delivers messages as a broker does: their memory is used again afterwards.
func (w *world) Deliver(ms []protocol.Message) {
	borrowed := slices.Clone(ms)
	memory := make([][]byte, len(ms))
	for i := range borrowed {
		at := &borrowed[i].Position
		memory[i] = []byte(at.Epoch)
		at.Epoch = unsafe.String(&memory[i][0], len(memory[i]))
	}
	w.Rooms.Deliver(borrowed)
	for _, epoch := range memory {
		clear(epoch)
	}
}

func text(p protocol.Position) string { return p.Epoch + ":" + strconv.FormatUint(p.Offset, 10) }

// enter makes c a member, from its position if it has one.
func (w *world) enter(c *client, last int) {
	w.Hold(w.Context(), roomName)
	c.held = true
	limits := history.Limits{Messages: 1000, Bytes: 1 << 20}
	w.Join(w.Context(), limits, []history.Request{{Room: roomName, After: c.at, Last: last}}, func(results []history.Result) {
		w.mu.Lock()
		defer w.mu.Unlock()
		result := results[0]
		c.unrecovered, c.interrupted = result.Unrecovered, false
		if result.Unrecovered != "" || last > 0 {
			c.at = protocol.Position{} // what was missed is reported
		}
		c.receive(result.Messages)
		if c.at == (protocol.Position{}) {
			c.at = result.Position
		}
		if c.at != result.Position && c.wrong == "" {
			c.wrong = "joined at " + text(result.Position) + " with messages up to " + text(c.at)
		}
		w.members = append(w.members, c)
	})
}

// exit ends the membership of c.
func (w *world) exit(c *client) {
	w.mu.Lock()
	w.members = slices.DeleteFunc(w.members, func(o *client) bool { return o == c })
	held := c.held
	c.held = false
	w.mu.Unlock()
	if held {
		w.Release(roomName)
	}
}

func (c *client) check(t interface{ Errorf(string, ...any) }) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.wrong != "" {
		t.Errorf("%s", c.wrong)
	}
}

func (w *world) client() *client { return &client{w: w, positions: true} }

var errBroken = errors.New("broken")
