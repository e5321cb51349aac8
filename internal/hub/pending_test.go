package hub_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
)

// queueingClient is a member whose connection queues what is written until the peer takes it, like
// a real one.
type queueingClient struct {
	client
	back    func() // called on the loop after a recall; set before the switch
	waiting atomic.Int64
	taken   atomic.Int64 // messages; counted before waiting is reduced

	mu      sync.Mutex // guards the fields below
	pieces  [][]byte
	low     int64
	drained bool // Drained must be called
}

func (m *queueingClient) Write(p []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pieces = append(m.pieces, p)
	m.waiting.Add(int64(len(p)))
	return true
}

func (m *queueingClient) WriteNow(p []byte) bool { return m.Write(p) }
func (m *queueingClient) Buffered() int          { return int(m.waiting.Load()) }

func (m *queueingClient) NotifyBelow(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.low = int64(n)
	return m.waiting.Load() >= m.low
}

func (m *queueingClient) Recall(func([]byte, int) int) [][]byte {
	m.mu.Lock()
	back := m.pieces
	m.pieces = nil
	m.waiting.Store(0)
	m.mu.Unlock()
	m.back()
	return back
}

// take simulates that the peer takes the oldest piece.
func (m *queueingClient) take() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.pieces) == 0 {
		return
	}
	var in inbox
	end := ws.NewEndpoint(ws.Client, 1<<20, false)
	_ = end.Feed(bytes.Clone(m.pieces[0]), &in) // whole frames, or the test hangs
	m.taken.Add(int64(len(in.events)))
	now := m.waiting.Add(-int64(len(m.pieces[0])))
	m.pieces = m.pieces[1:]
	if now < m.low {
		m.low, m.drained = 0, true
	}
}

// due reports once that the connection has drained.
func (m *queueingClient) due() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	due := m.drained
	m.drained = false
	return due
}

// TestPendingMissesNoMessage checks that Pending counts all messages, wherever they wait for a
// client, and also while the client is switched to encryption and they are recalled.
func TestPendingMissesNoMessage(t *testing.T) {
	t.Parallel()
	for range 5 {
		pendingMissesNoMessage(t)
	}
}

func pendingMissesNoMessage(t *testing.T) {
	const before, after = 100, 100
	m := &queueingClient{}
	h := newHub(1, hub.Config{BackpressureLimit: 1 << 30, Backlogged: func(int) bool { return m.waiting.Load() > 0 }})
	m.Init(idOf("m"), m, h.Lane(0), m)
	h.Admit(&m.Member, hub.Admission{User: "u", Rooms: []string{"r"}, Welcome: message("connected")})
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(stop)
	var reading atomic.Bool
	all.Go(func() { // the loop and the peer; ends with stop
		for {
			select {
			case <-stop:
				return
			default:
			}
			if reading.Load() {
				m.take()
			}
			if m.due() {
				m.Drained()
			}
			h.Lane(0).Tick()
		}
	})
	msg := ws.NewMessage([]byte(`{"event":"m","data":"` + strings.Repeat("x", 500) + `"}`))
	sent := int64(1)
	check := func() {
		for _, to := range []hub.Target{toRoom("r"), toUser("u"), toClient("m")} {
			pending := h.Pending(to)
			least := (sent - 1 - m.taken.Load()) * int64(len(msg.Frame())) // without the welcome
			if int64(pending) < least {
				t.Errorf("Pending = %d, want at least %d", pending, least)
			}
		}
	}
	send := func() {
		if err := h.Send(toRoom("r"), msg, nil); err != nil {
			t.Fatal(err)
		}
		sent++
		check()
	}
	for range before {
		send()
	}
	m.back = check
	changed := make(chan error, 1)
	all.Go(func() { // ends with the switch
		changed <- h.SwitchToEncrypted(context.Background(), stop, &m.Member, hub.Switchover{Encryption: hub.Encryption{Cipher: cipher(t)}})
	})
	for !m.Encrypted() {
		check()
	}
	for range 100 {
		check()
	}
	reading.Store(true)
	if err := <-changed; err != nil {
		t.Fatal(err)
	}
	for range after {
		send()
	}
	for end := time.Now().Add(20 * time.Second); m.taken.Load() < sent; check() {
		if time.Now().After(end) {
			t.Fatalf("the peer took %d of %d messages", m.taken.Load(), sent)
		}
	}
	// Sealed messages count until the next turn.
	for end := time.Now().Add(20 * time.Second); h.Pending(toAll()) > 0; {
		if time.Now().After(end) {
			t.Fatalf("Pending = %d after the peer has taken all messages", h.Pending(toAll()))
		}
	}
	h.Wait()
}
