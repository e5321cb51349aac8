package e2e_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// itemQueue is an unbounded queue: a test's client reads everything that arrives.
type itemQueue[T any] struct {
	mu    sync.Mutex
	items []T
	ready chan struct{}
}

func newItemQueue[T any]() *itemQueue[T] { return &itemQueue[T]{ready: make(chan struct{}, 1)} }

func (m *itemQueue[T]) put(item T) {
	m.mu.Lock()
	m.items = append(m.items, item)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// take waits for the next item. Only one goroutine may call it at a time.
func (m *itemQueue[T]) take(patience time.Duration) (item T, ok bool) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		m.mu.Lock()
		if len(m.items) > 0 {
			item = m.items[0]
			m.items = m.items[1:]
			m.mu.Unlock()
			return item, true
		}
		m.mu.Unlock()
		select {
		case <-m.ready:
		case <-timeout.C:
			return item, false
		}
	}
}

// received is one event of a peer: a text message, a close frame, or the end of the connection.
type received struct {
	text   string
	code   int // of a close frame
	reason string
	err    error // why the connection ended
	at     time.Time
}

func (r received) String() string {
	switch {
	case r.err != nil:
		return fmt.Sprintf("end of connection (%v)", r.err)
	case r.code != 0:
		return fmt.Sprintf("close %d %q", r.code, r.reason)
	}
	return "message " + r.text
}

// peer is a client of a test. It answers pings and close frames by itself, unless it is mute.
type peer struct {
	t     testing.TB
	wire  wire
	in    *itemQueue[received]
	pings atomic.Int32
	pongs *itemQueue[string]
	mute  atomic.Bool
	id    string // set by login
	user  string
	done  chan struct{} // closed when the connection has ended
}

// newPeer reads from w until the connection or the test ends.
func newPeer(t testing.TB, w wire) *peer {
	p := &peer{t: t, wire: w, in: newItemQueue[received](), pongs: newItemQueue[string](), done: make(chan struct{})}
	go p.read() // ends with the connection
	t.Cleanup(func() {
		w.close()
		<-p.done
	})
	return p
}

func (p *peer) read() {
	defer close(p.done)
	for {
		op, payload, err := p.wire.recv()
		if err != nil {
			p.put(received{err: err})
			return
		}
		switch op {
		case opText:
			p.put(received{text: string(payload)})
		case opPing:
			p.pings.Add(1)
			if !p.mute.Load() {
				_ = p.wire.send(opPong, payload)
			}
		case opPong:
			p.pongs.put(string(payload))
		case opClose:
			r := received{code: 1005}
			if len(payload) >= 2 {
				r.code, r.reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
			}
			p.put(r)
			if _, raw := p.wire.(*rawWire); raw && !p.mute.Load() {
				_ = p.wire.send(opClose, payload)
				p.wire.close()
			}
		default:
			p.put(received{err: fmt.Errorf("the server sent opcode %d", op)})
		}
	}
}

func (p *peer) put(r received) {
	r.at = time.Now()
	p.in.put(r)
}

// text sends a text message.
func (p *peer) text(message string) {
	p.t.Helper()
	if err := p.wire.send(opText, []byte(message)); err != nil {
		p.t.Errorf("send %.80s: %v", message, err)
	}
}

// say sends an event; data is JSON.
func (p *peer) say(event, data string) {
	p.t.Helper()
	p.text(fmt.Sprintf(`{"event":%q,"data":%s}`, event, data))
}

func (p *peer) next() received {
	p.t.Helper()
	r, ok := p.in.take(answer)
	if !ok {
		p.t.Fatalf("nothing arrived within %v", answer)
	}
	return r
}

// wants takes the next message, which must be want.
func (p *peer) wants(message string) {
	p.t.Helper()
	if r := p.next(); r.text != message {
		p.t.Fatalf("got %v, want %s", r, message)
	}
}

// wantsError takes the next message, which must be an error with this text.
func (p *peer) wantsError(text string) {
	p.t.Helper()
	p.wants(`{"event":"error","data":{"message":"` + text + `"}}`)
}

// wantsClose takes the next event, which must be this close frame.
func (p *peer) wantsClose(code int, reason string) {
	p.t.Helper()
	if r := p.next(); r.code != code || r.reason != reason {
		p.t.Fatalf("got %v, want close %d %q", r, code, reason)
	}
}

// wantsEnd takes the next event, which must be the end of the connection without a close frame.
func (p *peer) wantsEnd() {
	p.t.Helper()
	if r := p.next(); r.err == nil {
		p.t.Fatalf("got %v, want the end of the connection", r)
	}
}

// event takes the next message and returns its parts.
func (p *peer) event() (event string, data json.RawMessage) {
	p.t.Helper()
	r := p.next()
	var e struct {
		Event string
		Data  json.RawMessage
	}
	if err := json.Unmarshal([]byte(r.text), &e); err != nil {
		p.t.Fatalf("got %v, want an event", r)
	}
	return e.Event, e.Data
}

// login authenticates as user and stores the id from `connected`.
func (p *peer) login(user string) string {
	p.t.Helper()
	p.say("authenticate", `{"as":"`+user+`","name":"`+user+`"}`)
	return p.welcome()
}

// welcome takes `connected`.
func (p *peer) welcome() string {
	p.t.Helper()
	var data struct{ ID, UserID string }
	event, raw := p.event()
	if err := json.Unmarshal(raw, &data); err != nil || event != "connected" {
		p.t.Fatalf("got %s %s, want connected (%v)", event, raw, err)
	}
	p.id, p.user = data.ID, data.UserID
	return data.ID
}

// hangUp closes the connection without a close frame.
func (p *peer) hangUp() { p.wire.close() }

// bye closes the connection with a close frame.
func (p *peer) bye(code int, reason string) {
	p.t.Helper()
	_ = p.wire.send(opClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
}
