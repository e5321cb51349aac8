package session_test

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// newGatedFixture returns a fixture whose message callbacks each wait for one element of gate.
func newGatedFixture() (b *fixture, gate chan struct{}, handled *[]string) {
	gate, handled = make(chan struct{}), new([]string)
	b = newFixture(session.LobbyConfig{}, session.Callbacks{
		Message: func(_ context.Context, _ *session.Session, e protocol.Envelope, _ *session.Request) error {
			<-gate
			*handled = append(*handled, e.Event)
			return nil
		},
	})
	return b, gate, handled
}

func deflated(s string) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write([]byte(s))
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

func compressed(payload []byte) []byte {
	return ws.AppendMaskedFrame(nil, ws.OpText, true, payload)
}

// TestInflateOnWorker checks that a compressed message is inflated by the worker, after the
// messages before it, and not by the loop.
func TestInflateOnWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, gate, handled := newGatedFixture()
		p := b.openWith("10.0.0.1", true)
		p.authenticated()
		p.sendEvent("first", 1)
		p.Data(compressed(deflated(`{"event":"second"}`)), 0)
		p.Data(compressed([]byte{0xff, 0xff}), 0)
		p.sendEvent("late", 1)
		synctest.Wait()
		if s := p.State(); s != protocol.StateAuthenticated {
			t.Errorf("the client is %v before its messages are handled", s)
		}
		close(gate)
		synctest.Wait()
		if s := p.State(); s != protocol.StateDisconnected || fmt.Sprint(*handled) != "[first second]" {
			t.Errorf("the client is %v after %v", s, *handled)
		}
		if s := b.env.Stats; s.ProtocolErrors.Load() != 1 || s.MessagesDiscarded.Load() != 1 {
			t.Errorf("%d protocol errors, %d messages dropped", s.ProtocolErrors.Load(), s.MessagesDiscarded.Load())
		}
		b.close()
	})
}

// TestUnparsedBytes checks that the part of a read that was not parsed because the client was
// paused is parsed later, unless the session was closed. Pings and pongs do not end that.
func TestUnparsedBytes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end     func(p *peer)
		handled bool // all of it
		rate    int  // Limits.MessageRate
	}{
		"stays":                 {func(*peer) {}, true, 0},
		"disconnects":           {func(p *peer) { p.PeerClosed() }, true, 0},
		"disconnects, too fast": {func(p *peer) { p.PeerClosed() }, true, 10},
		"heartbeat":             {func(p *peer) { p.CloseFor(nil, 4002, "") }, true, 0},
		"shutdown":              {func(p *peer) { p.Shutdown(false) }, true, 0},
		"closed":                {func(p *peer) { p.Close(4000, "") }, false, 0},
		"abandoned":             {func(p *peer) { p.Shutdown(false); p.abandon() }, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, gate, handled := newGatedFixture()
				b.env.Limits.ClientQueue = 2000
				b.env.Limits.MessageRate = tt.rate
				p := b.member()
				p.abandon = func() { b.env.Abandoned.Store(true) }
				const messages = 500
				var read []byte
				for i := range messages {
					switch i {
					case 100, 300:
						read = append(read, ws.AppendMaskedFrame(nil, ws.OpPing, false, []byte("x"))...)
					case 200:
						read = append(read, ws.AppendMaskedFrame(nil, ws.OpPong, false, nil)...)
					}
					read = append(read, ws.AppendMaskedFrame(nil, ws.OpText, false, fmt.Appendf(nil, `{"event":"%d"}`, i))...)
				}
				p.Data(read, 0)
				synctest.Wait()
				if n := b.env.Stats.MessagesIn.Load(); n > 30 || !p.isPaused() {
					t.Errorf("%d messages were parsed; paused %v", n, p.isPaused())
				}
				gate <- struct{}{}
				tt.end(p)
				close(gate)
				synctest.Wait()
				if n := len(*handled); tt.handled && n != messages || !tt.handled && n > 2 {
					t.Errorf("%d messages handled", n)
				}
				for i, e := range *handled {
					if e != fmt.Sprint(i) {
						t.Fatalf("message %d is %s", i, e)
					}
				}
				if s := b.env.Stats; s.MessagesIn.Load()-1 != uint64(len(*handled))+s.MessagesDiscarded.Load() {
					t.Errorf("%d of %d messages handled, %d dropped", len(*handled), s.MessagesIn.Load()-1, s.MessagesDiscarded.Load())
				}
				if ended := p.State() == protocol.StateDisconnected; name == "shutdown" && !ended || p.isPaused() && ended {
					t.Errorf("ended %v, paused %v", ended, p.isPaused())
				}
				b.close()
			})
		})
	}
}

// TestStopParsingAtEnd checks that a session that is closed while a read is parsed does not parse
// the rest of it.
func TestStopParsingAtEnd(t *testing.T) {
	t.Parallel()
	b := newFixture(session.LobbyConfig{}, session.Callbacks{})
	defer b.close()
	p := b.open("10.0.0.1")
	p.Data(bytes.Repeat(ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(`{"event":"heartbeat"}`)), 1028), 0)
	if n := b.env.Stats.MessagesIn.Load(); n != 17 || p.State() != protocol.StateDisconnected {
		t.Errorf("%d messages were parsed, want 17; the client is %v", n, p.State())
	}
}

// TestWaitForLoop checks that messages are handled no faster than the loop sends the replies, so
// that a flood of messages with replies cannot fill the memory.
func TestWaitForLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := newGatedFixture()
		p := b.open("10.0.0.1")
		p.authenticated()
		bad := ws.AppendMaskedFrame(nil, ws.OpText, false, []byte("{"))
		const reads, each = 100, 100
		sent, handled := 0, func() int { return int(b.env.Stats.BadMessages.Load()) }
		for ; sent < reads && !p.isPaused(); sent++ {
			p.Data(bytes.Repeat(bad, each), 0)
			synctest.Wait()
		}
		if n := handled(); n < 256 || n > 320 {
			t.Errorf("%d messages were handled before the loop has sent a reply", n)
		}
		for ; handled() < reads*each; p.lane.Tick() {
			before := handled()
			synctest.Wait()
			if n := handled() - before; n > 320 {
				t.Fatalf("%d messages were handled in one turn", n)
			}
			if sent < reads && !p.isPaused() {
				p.Data(bytes.Repeat(bad, each), 0)
				sent++
			}
		}
		p.lane.Tick()
		if n := bytes.Count(p.out, []byte("Invalid message format")); n != reads*each {
			t.Errorf("%d replies to %d messages", n, reads*each)
		}
		b.close()
	})
}

// TestResumeAtEnd checks that a session that waits for a loop continues when the loop has ended.
func TestResumeAtEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := newGatedFixture()
		p := b.open("10.0.0.1")
		p.authenticated()
		bad := ws.AppendMaskedFrame(nil, ws.OpText, false, []byte("{"))
		const messages = 1000
		p.Data(bytes.Repeat(bad, messages), 0)
		synctest.Wait()
		b.env.Hub.ResumeAll()
		synctest.Wait()
		if n := b.env.Stats.BadMessages.Load(); n != messages {
			t.Errorf("%d of %d messages handled", n, messages)
		}
		b.close()
	})
}
