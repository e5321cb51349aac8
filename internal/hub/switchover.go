package hub

import (
	"context"
	"errors"

	"github.com/hearthws/hearth/internal/ws"
)

// ErrEncrypted is returned by SwitchToEncrypted for a member that is encrypted already.
var ErrEncrypted = errors.New("client is already encrypted")

// ErrBackpressure is returned by SwitchToEncrypted if the last unencrypted messages do not fit,
// because too much waits for the client.
var ErrBackpressure = errors.New("too many messages wait for the client")

// Switchover describes how an unencrypted member becomes an encrypted one.
type Switchover struct {
	Encryption
	// Last is the last unencrypted message. It is sent before the messages that wait. Nil: none.
	Last *ws.Message
	// KeepPlain gets the messages that wait and returns how many of them, from the first on, are
	// sent unencrypted, because the client needs them to read the others. It is called on the
	// lane's loop, and must not block. Nil: none.
	KeepPlain func(payloads [][]byte) int

	queue *sealQueue
	done  chan error // with a buffer of one
}

// SwitchToEncrypted makes m an encrypted member, permanently. When it returns nil, nothing is sent
// unencrypted any more, except the rest of a frame of which a part was written. Messages that were
// queued in the lane and in the connection are sealed. SwitchToEncrypted waits for a turn of the
// loop. If it returns ctx's error, or ErrNotMember because gone was closed, the switch may still
// happen.
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

// switchOver switches m to encryption. It is the first item in a turn, so the connection has tried
// to write all earlier messages.
func (l *Lane) switchOver(m *Member, c *Switchover) {
	switch {
	case m.sealed:
		c.done <- ErrEncrypted
		return
	case !m.live:
		c.done <- ErrNotMember
		return
	}
	// Before it recalls messages, the loop counts them in the queue and makes the queue visible, so
	// that Pending misses none.
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
	l.hub.delivered.Add(-uint64(len(back.payloads) - plain)) // they were counted, and are recalled
	l.sealer.requeue(c.queue, newRun(back.payloads[plain:]))
	c.queue.count(-buffered)
	switch {
	case announced:
		c.done <- nil
	case m.link.Closing():
		c.done <- ErrNotMember
	default: // the client cannot open the messages that follow
		l.record(m, 1, false)
		c.done <- ErrBackpressure
	}
}

// writeLastPlain writes the last unencrypted messages, and reports whether they fitted.
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

// setEncrypted makes m one of the encrypted members. Messages to m go through its queue only when
// the loop sets m.sealed, while an encrypted answer to the last unencrypted message can already be
// opened.
func (l *Lane) setEncrypted(m *Member, q *sealQueue) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if m.admitted {
		l.hub.countLocked(m, -1)
		defer l.hub.countLocked(m, 1)
	}
	m.queue.Store(q)
}

// newRun returns a run of messages with these payloads.
func newRun(payloads [][]byte) *fanOutBatch {
	run := make([]item, len(payloads))
	for i, payload := range payloads {
		run[i].msg = ws.NewMessage(payload)
	}
	return &fanOutBatch{run: run}
}

// recalled holds frames that were taken back from a connection.
type recalled struct {
	payloads [][]byte // of messages
	control  [][]byte // whole frames
}

// read adds the frames of a piece, which has whole frames only.
func (t *recalled) read(piece []byte) {
	end := ws.NewEndpoint(ws.Client, 1<<30, true)
	_ = end.Feed(piece, t) // never fails: the frames are the hub's own
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

func (t *recalled) Close(int, string) {} // nothing is recalled after CloseAfterFlush
