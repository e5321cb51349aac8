package session_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// TestRateAfterPause checks that a pause credits the client with the paused time, and that the
// credit does not grow afterwards and ends when the client is idle. The client may send 10 messages
// per second, and 100 at once.
func TestRateAfterPause(t *testing.T) {
	t.Parallel()
	small := func(compress bool) []byte {
		if compress {
			return compressed(deflated(`{"event":"m"}`))
		}
		return ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(`{"event":"m"}`))
	}
	large := func() []byte {
		return ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(`{"event":"m","data":"`+strings.Repeat("x", 3000)+`"}`))
	}
	for name, tt := range map[string]struct {
		compress         bool
		pauses           int           // of 10 s each, with 3 messages each
		between, idle    time.Duration // between two pauses; after the last
		messages, sender int           // handled in all; per second, 0: all at once
	}{
		"never":                 {messages: 100},
		"never, then idle":      {idle: time.Hour, messages: 100},
		"once":                  {pauses: 1, messages: 200},
		"once, then idle":       {pauses: 1, idle: time.Hour, messages: 100 + 3},
		"once, then short idle": {pauses: 1, idle: 5 * time.Second, messages: 150},
		"compressed":            {pauses: 1, compress: true, messages: 200},
		"twice":                 {pauses: 2, messages: 300},
		"twice, idle between":   {pauses: 2, between: time.Hour, messages: 200 + 3},
		"twice, idle after":     {pauses: 2, between: time.Hour, idle: time.Hour, messages: 100 + 6},
		"twice the rate":        {sender: 20, messages: 199},
		"once, twice the rate":  {pauses: 1, sender: 20, messages: 3 + 392},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, gate, handled := newGatedFixture()
				b.env.Limits.ClientQueue = 2000
				b.env.Limits.MessageRate = 10
				p := b.openWith("10.0.0.1", true)
				p.authenticated()
				time.Sleep(time.Minute)
				send := func(frame []byte) { p.Data(frame, b.env.Clock.Now()) }

				for i := range tt.pauses {
					if i > 0 {
						time.Sleep(tt.between)
					}
					send(small(false))
					send(small(tt.compress))
					send(large())
					synctest.Wait()
					if !p.isPaused() {
						t.Fatal("the client is not paused")
					}
					time.Sleep(5 * time.Second)
					gate <- struct{}{}
					time.Sleep(5 * time.Second)
					gate <- struct{}{}
					gate <- struct{}{}
					synctest.Wait()
					if p.isPaused() {
						t.Fatal("the client is still paused")
					}
				}
				close(gate)
				time.Sleep(tt.idle)
				for range 2000 {
					if p.State() == protocol.StateDisconnected {
						break
					}
					send(small(tt.compress))
					synctest.Wait()
					if tt.sender > 0 {
						time.Sleep(time.Second / time.Duration(tt.sender))
					}
				}
				if n, limited := len(*handled), b.env.Stats.RateLimited.Load(); n != tt.messages || limited != 1 {
					t.Errorf("%d messages were handled, want %d; clients closed: %d", n, tt.messages, limited)
				}
				b.close()
			})
		})
	}
}

// TestRateOfCompressed checks that a compressed message costs its inflated size, also when it is
// larger compressed.
func TestRateOfCompressed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, gate, handled := newGatedFixture()
		close(gate)
		const text, messages = `{"event":"m"}`, 20
		b.env.Limits.MaxPayload = 100
		b.env.Limits.ByteRate = messages * len(text) / 10
		p := b.openWith("10.0.0.1", true)
		p.authenticated()
		time.Sleep(time.Minute)
		n := byte(len(text))
		stored := "\x00" + string([]byte{n, 0, ^n, 0xff}) + text + "\x00" // not compressed
		for range messages + 1 {
			p.Data(compressed([]byte(stored)), b.env.Clock.Now())
			synctest.Wait()
		}
		if n := len(*handled); n != messages || p.State() != protocol.StateDisconnected {
			t.Errorf("%d messages were handled, want %d; the client is %v", n, messages, p.State())
		}
		b.close()
	})
}
