package e2e_test

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
)

// deflated compresses with the standard library, as a sender with permessage-deflate does.
func deflated(s string) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write([]byte(s))
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// opDeflated is the first byte of a compressed text message, without FIN.
const opDeflated = 0x40 | opText

// rawCompressed is raw for a client that has negotiated compression.
func (r *rig) rawCompressed() *rawWire {
	r.t.Helper()
	conn, err := r.dial()
	must(r.t, err)
	w, err := upgradeWith(conn, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
	must(r.t, err)
	return w
}

// writeFrames sends frames in one write.
func (w *rawWire) writeFrames(frames ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.conn.Write(bytes.Join(frames, nil))
	return err
}

// TestReceivedBeforeViolation checks a client that breaks the rules: its earlier messages are all
// handled and answered before the close frame and before Disconnected.
func TestReceivedBeforeViolation(t *testing.T) {
	t.Parallel()
	bad := deflated("nonsense")
	bad[0] = 0xff
	tests := map[string]struct {
		frame []byte
		code  int
	}{
		"reserved opcode":            {frameOf(0x83, nil), 1002},
		"not UTF-8":                  {frameOf(0x80|opText, []byte{0xff}), 1007},
		"too big":                    {frameOf(0x80|opText, bytes.Repeat([]byte{' '}, 2000)), 1009},
		"not DEFLATE":                {frameOf(0x80|opDeflated, bad), 1007},
		"too big, compressed":        {frameOf(0x80|opDeflated, deflated(repeat(" ", 2000))), 1009},
		"compressed, not UTF-8":      {frameOf(0x80|opDeflated, deflated("\xff")), 1007},
		"unmasked":                   {[]byte{0x80 | opText, 0}, 1002},
		"continuation without start": {frameOf(0x80|opContinuation, nil), 1002},
	}
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				const messages = 100
				var handled atomic.Int32
				type end struct{ handled, code int }
				closed := make(chan end, 1)
				r := start(t, config{
					Transport: transport, Compression: true, Limits: hearth.Limits{MaxPayload: 1000},
					Message: func(_ context.Context, c *client, m hearth.Message) error {
						handled.Add(1)
						return c.Send("echo", m.ID)
					},
					Disconnected: func(_ context.Context, _ *client, code int, _ string) {
						closed <- end{int(handled.Load()), code}
					},
				})
				w := r.rawCompressed()
				p := newPeer(t, w)
				p.login("u")
				var frames [][]byte
				for i := range messages {
					frames = append(frames, frameOf(0x80|opText, fmt.Appendf(nil, `{"event":"m","id":%d}`, i)))
				}
				frames = append(frames, tt.frame, frameOf(0x80|opText, []byte(`{"event":"late"}`)))
				must(t, w.writeFrames(frames...))
				for i := range messages {
					p.wants(fmt.Sprintf(`{"event":"echo","data":%d}`, i))
				}
				if e := p.next(); e.code != tt.code {
					t.Errorf("got %v, want close %d", e, tt.code)
				}
				if e := <-closed; e != (end{messages, tt.code}) {
					t.Errorf("disconnected with %d after %d messages", e.code, e.handled)
				}
				if s := r.Stats(); s.ProtocolErrors != 1 {
					t.Errorf("stats: %+v", s)
				}
			})
		}
	})
}

// TestRepliesBeforePreAuthFlood checks a client that is closed for too many messages before
// authentication: it receives every pending answer, and the rest of its messages are not parsed.
func TestRepliesBeforePreAuthFlood(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport})
		w := r.raw()
		p := newPeer(t, w)
		var frames [][]byte
		for range 1000 {
			frames = append(frames, frameOf(0x80|opText, []byte(`{"event":"m"}`)))
		}
		must(t, w.writeFrames(frames...))
		for range 16 {
			p.wantsError("Not authenticated")
		}
		p.wantsClose(1008, "Too many messages before authentication")
		if s := r.Stats(); s.PreAuthFlood != 1 || s.MessagesIn != 17 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestInflatedIsBounded checks that the memory that a client occupies is bounded by its queue,
// however well its data compresses.
func TestInflatedIsBounded(t *testing.T) { // not parallel: it measures the memory of the process
	for _, transport := range []hearth.Transport{hearth.TransportNetConn, hearth.TransportAuto} {
		const messages, inflated = 369, 131_021
		sizes, release := make(chan int), make(chan struct{})
		r := start(t, config{
			Transport: transport, Compression: true,
			Message: func(_ context.Context, _ *client, m hearth.Message) error {
				sizes <- len(m.Data)
				<-release
				return nil
			},
		})
		message := `{"event":"m","data":"` + repeat("x", inflated-23) + `"}`
		flood := bytes.Repeat(frameOf(0x80|opDeflated, deflated(message)), messages)
		before := heap()
		w := r.rawCompressed()
		p := newPeer(t, w)
		p.login("u")
		must(t, w.writeFrames(flood))
		if n := <-sizes; n != inflated-21 {
			t.Errorf("the data has %d bytes", n)
		}
		r.counts(func(s hearth.Stats) bool { return s.MessagesIn > 3 })
		time.Sleep(10 * time.Millisecond) // without the bound, it would continue by now
		if n := int64(heap()) - int64(before); n > 8<<20 {
			t.Errorf("%d MiB are in use for %d KiB of received data", n>>20, len(flood)>>10)
		}
		must(t, r.client(p).Disconnect(4100, ""))
		close(release)
		p.wantsClose(4100, "")
		if s := r.Stats(); s.MessagesDiscarded != s.MessagesIn-2 { // authenticate, and the first
			t.Errorf("stats: %+v", s)
		}
	}
}

// heap returns the number of bytes in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestPausedParsesNothing checks that no messages are parsed beyond the bound of a client's queue,
// however many arrived in one read, and that none are lost.
func TestPausedParsesNothing(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for name, end := range map[string]struct {
			frame []byte
			code  int
		}{
			"stays":     {frame: frameOf(0x80|opText, []byte(`{"event":"end"}`))},
			"closes":    {frame: frameOf(0x80|opClose, []byte{0x0f, 0xa0}), code: 4000},
			"breaks":    {frame: frameOf(0x83, nil), code: 1002},
			"goes away": {code: 1006},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				const messages, bound = 1000, 4096
				release := make(chan struct{})
				var handled atomic.Int32
				closed := make(chan int, 1)
				ended := make(chan struct{})
				r := start(t, config{
					Transport: transport, Limits: hearth.Limits{ClientQueue: bound},
					Message: func(_ context.Context, _ *client, m hearth.Message) error {
						<-release
						if m.Event == "end" {
							close(ended)
						} else if n := handled.Add(1) - 1; string(m.ID) != fmt.Sprint(n) {
							t.Errorf("message %s, want %d", m.ID, n)
						}
						return nil
					},
					Disconnected: func(_ context.Context, _ *client, code int, _ string) { closed <- code },
				})
				w := r.raw()
				p := newPeer(t, w)
				p.login("u")
				frames := make([][]byte, messages)
				for i := range frames {
					frames[i] = frameOf(0x80|opText, fmt.Appendf(nil, `{"event":"m","id":%d}`, i))
				}
				must(t, w.writeFrames(append(frames, end.frame)...))
				if end.code == 1006 {
					must(t, w.closeWrite())
				}
				r.counts(func(s hearth.Stats) bool { return s.MessagesIn > 20 })
				time.Sleep(10 * time.Millisecond) // without the bound, it would continue by now
				if n := r.Stats().MessagesIn; n > 2+bound/64 {
					t.Errorf("%d messages were read", n)
				}
				close(release)
				if end.code == 0 {
					within(t, ended, "the last message")
				} else if code := <-closed; code != end.code {
					t.Errorf("disconnected with %d, want %d", code, end.code)
				}
				if n := handled.Load(); n != messages {
					t.Errorf("%d messages handled", n)
				}
			})
		}
	})
}

// busyServer starts a server with a client whose first message is being handled. The other messages
// wait until release is closed.
func busyServer(t *testing.T, cfg config, messages int) (r *rig, p *peer, handled *atomic.Int32, release chan struct{}) {
	handled, release = new(atomic.Int32), make(chan struct{})
	begun := make(chan struct{}, 1)
	cfg.Message = func(ctx context.Context, c *client, m hearth.Message) error {
		select {
		case begun <- struct{}{}:
		default:
		}
		select {
		case <-release:
		case <-ctx.Done():
			return nil
		}
		handled.Add(1)
		if err := c.Send("echo", m.ID); !errors.Is(err, hearth.ErrNotConnected) {
			return err
		}
		return nil
	}
	r = start(t, cfg)
	w := r.raw()
	p = newPeer(t, w)
	p.login("u")
	var frames [][]byte
	for i := range messages {
		frames = append(frames, frameOf(0x80|opText, fmt.Appendf(nil, `{"event":"m","id":%d}`, i)))
	}
	must(t, w.writeFrames(frames...))
	<-begun
	return r, p, handled, release
}

// TestShutdownHandlesReceived checks that messages received before a shutdown are handled and
// answered before the close with 1001.
func TestShutdownHandlesReceived(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for _, queue := range []int{0, 4096} { // all are in the queue; most are not parsed yet
			const messages = 1000
			r, p, handled, release := busyServer(t, config{Transport: transport, Limits: hearth.Limits{ClientQueue: queue}}, messages)
			if queue == 0 {
				r.counts(func(s hearth.Stats) bool { return s.MessagesIn == messages+1 })
			} else {
				r.counts(func(s hearth.Stats) bool { return s.MessagesIn > 20 })
			}
			done := make(chan error, 1)
			// ends when the client has disconnected
			go func() { done <- r.Shutdown(context.Background()) }()
			close(release)
			n := 0
			for e := p.next(); ; e = p.next() {
				if e.code == 1001 && e.reason == "Server shutting down" {
					break
				}
				if want := fmt.Sprintf(`{"event":"echo","data":%d}`, n); e.text != want {
					t.Fatalf("got %v, want %s", e, want)
				}
				n++
			}
			must(t, <-done)
			if s := r.Stats(); n != int(handled.Load()) || uint64(n) != s.MessagesIn-1 || s.MessagesDiscarded != 0 {
				t.Errorf("%d answers, %d handled, stats %+v", n, handled.Load(), s)
			}
		}
	})
}

// TestShutdownTooShort checks that messages that a shutdown has no time for are counted and logged,
// and that the clients still receive a close frame.
func TestShutdownTooShort(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const messages = 100
		var log syncBuffer
		r, p, handled, _ := busyServer(t, config{Transport: transport, Logger: slog.New(slog.NewTextHandler(&log, nil))}, messages)
		r.counts(func(s hearth.Stats) bool { return s.MessagesIn == messages+1 })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		p.wantsClose(1001, "Server shutting down")
		if s := r.Stats(); s.MessagesDiscarded != messages-1 || handled.Load() != 0 {
			t.Errorf("%d handled, stats %+v", handled.Load(), s)
		}
		if s := log.String(); strings.Count(s, "not handled") != 1 || !strings.Contains(s, "messages=99") {
			t.Errorf("log: %s", s)
		}
	})
}

// TestDisconnectDiscards checks that messages of a client that the application has closed are
// discarded and counted.
func TestDisconnectDiscards(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const messages = 100
		var log syncBuffer
		r, p, handled, release := busyServer(t, config{Transport: transport, Logger: slog.New(slog.NewTextHandler(&log, nil))}, messages)
		r.counts(func(s hearth.Stats) bool { return s.MessagesIn == messages+1 })
		must(t, r.client(p).Disconnect(4100, "enough"))
		close(release)
		p.wantsClose(4100, "enough")
		must(t, r.Shutdown(context.Background()))
		if s := r.Stats(); s.MessagesDiscarded != messages-1 || handled.Load() != 1 {
			t.Errorf("%d handled, stats %+v", handled.Load(), s)
		}
		if s := log.String(); strings.Count(s, "not handled") != 1 {
			t.Errorf("log: %s", s)
		}
	})
}

// TestReceivedBeforeHeartbeatTimeout checks that a client that is closed for its silence has its
// earlier messages handled.
func TestReceivedBeforeHeartbeatTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		handled := 0
		closed := make(chan int, 1)
		r := startPiped(t, config{
			Message: func(context.Context, *client, hearth.Message) error {
				<-release
				handled++
				return nil
			},
			Disconnected: func(_ context.Context, _ *client, code int, _ string) { closed <- code },
		})
		p := r.member("u")
		for range 10 {
			p.say("m", "1")
		}
		pass(2 * time.Minute)
		p.wantsClose(4002, "Heartbeat timeout")
		close(release)
		if code := <-closed; code != 4002 || handled != 10 {
			t.Errorf("disconnected with %d after %d messages", code, handled)
		}
		synctest.Wait()
		if s := r.Stats(); s.MessagesDiscarded != 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// syncBuffer is a bytes.Buffer for concurrent use.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
