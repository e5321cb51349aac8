package hub

import (
	"context"
	"errors"

	"github.com/hearthws/hearth/internal/ws"
)

// ErrEncrypted is returned by SwitchToEncrypted for a member that is encrypted already.
var ErrEncrypted = errors.New("client is already encrypted")

// ErrBackpressure is returned by SwitchToEncrypted when what was to go out in plain had no room behind what the member has not taken yet.
var ErrBackpressure = errors.New("client has not taken what was sent to it")

// Switchover is how a member that is in plain becomes an encrypted one.
type Switchover struct {
	Encryption
	// Last goes out as the last message in clear, ahead of what waits. Nil: nothing does.
	Last *ws.Message
	// KeepPlain is announced the messages that were sent before and have not begun to go out, and returns how many of the first ones
	// go out in plain all the same: the member could not do without them. Called on the lane's loop; must not block.
	KeepPlain func(payloads [][]byte) int

	queue *sealQueue
	done  chan error // has room for one
}

// SwitchToEncrypted makes m an encrypted member for good. When it returns nil, nothing leaves in plain any more but the rest of
// a frame that had begun to go out: what was queued before, in the lane and in the connection, has been taken back to be
// sealed. It waits for a turn of the loop. With ctx's error, and with ErrNotMember because gone was closed, the change may
// still come about.
func (h *Hub) SwitchToEncrypted(ctx context.Context, gone <-chan struct{}, m *Member, c Switchover) error {
	c.queue = &sealQueue{member: m, Encryption: c.Encryption}
	c.done = make(chan error, 1)
	h.mu.RLock()
	admitted := m.admitted
	if admitted {
		m.lane.push(item{kind: encrypt, member: m, change: &c})
	}
	h.mu.RUnlock()
	if !admitted {
		return ErrNotMember
	}
	select {
	case err := <-c.done:
		return err
	case <-gone:
		return ErrNotMember
	case <-ctx.Done():
		return ctx.Err()
	}
}

// switchOver makes the change. It comes first in a turn, so that the connection has tried to send all that came before.
func (l *Lane) switchOver(m *Member, c *Switchover) {
	switch {
	case m.sealed:
		c.done <- ErrEncrypted
		return
	case !m.live:
		c.done <- ErrNotMember
		return
	}
	// What is taken back is counted before it is, and the outlet seen: a publisher that paces itself must not miss it.
	buffered := m.link.Buffered()
	c.queue.count(buffered)
	l.sealer.switched.Add(1)
	l.setEncrypted(m, c.queue)
	var back recalled
	for _, piece := range m.link.Recall(ws.FrameEnd) {
		back.read(piece)
	}
	plain := 0
	if c.KeepPlain != nil {
		plain = c.KeepPlain(back.payloads)
	}
	announced := l.writeLastPlain(m, back.payloads[:plain], back.control, c.Last)
	m.sealed = true
	l.hub.delivered.Add(-uint64(len(back.payloads) - plain)) // they have not been
	l.sealer.requeue(c.queue, newRun(back.payloads[plain:]))
	c.queue.count(-buffered)
	switch {
	case announced:
		c.done <- nil
	case m.link.Closing():
		c.done <- ErrNotMember
	default: // and could not open what follows
		l.record(m, 1, false)
		c.done <- ErrBackpressure
	}
}

// writeLastPlain writes what still goes out in clear, and reports whether there was room for it.
func (l *Lane) writeLastPlain(m *Member, payloads, control [][]byte, last *ws.Message) bool {
	announced := true
	for _, payload := range payloads {
		announced = announced && m.link.Write(ws.AppendFrame(nil, ws.OpText, payload))
	}
	for _, frame := range control {
		m.link.Write(frame)
	}
	if last == nil || !announced {
		return announced
	}
	if announced = m.link.Write(m.frameOf(last)); announced {
		l.hub.delivered.Add(1)
	}
	return announced
}

// setEncrypted makes m one of the encrypted members. Nothing goes through its outlet before it is sealed, but an answer to the last
// message in plain can be opened.
func (l *Lane) setEncrypted(m *Member, q *sealQueue) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if m.admitted {
		l.hub.countLocked(m, -1)
		defer l.hub.countLocked(m, 1)
	}
	m.queue.Store(q)
}

// newRun returns messages with these payloads as a run.
func newRun(payloads [][]byte) *fanOutBatch {
	run := make([]item, len(payloads))
	for i, payload := range payloads {
		run[i].msg = ws.NewMessage(payload)
	}
	return &fanOutBatch{run: run}
}

// recalled are frames that were to be sent, taken apart.
type recalled struct {
	payloads [][]byte // of messages
	control  [][]byte // whole frames
}

// read takes one piece, which is of whole frames.
func (t *recalled) read(piece []byte) {
	end := ws.NewEndpoint(ws.Client, 1<<30, true)
	_ = end.Feed(piece, t) // they were made here: there is nothing wrong with them
}

func (t *recalled) Message(_ ws.Opcode, payload []byte) {
	t.payloads = append(t.payloads, append([]byte(nil), payload...))
}

func (t *recalled) Ping(payload []byte) {
	t.control = append(t.control, ws.AppendFrame(nil, ws.OpPing, payload))
}

func (t *recalled) Pong(payload []byte) {
	t.control = append(t.control, ws.AppendFrame(nil, ws.OpPong, payload))
}

func (t *recalled) Close(int, string) {} // behind CloseAfterFlush nothing is taken back
