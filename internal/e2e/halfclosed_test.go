package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/seal"
)

// forEncryptions runs f for each transport with an unencrypted, an encrypted and a transformed
// client. The transformer blocks until the channel until is closed.
func forEncryptions(t *testing.T, f func(t *testing.T, cfg config, until chan struct{}, sealed bool)) {
	t.Helper()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for _, form := range []string{"clear", "sealed", "transformed"} {
			t.Run(form, func(t *testing.T) {
				t.Parallel()
				until := make(chan struct{})
				cfg := config{Transport: transport, Limits: hearth.Limits{BackpressureLimit: 64 << 20}, Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional}}
				if form == "transformed" {
					cfg.Transform = func(ctx context.Context, _ *client, _ hearth.Message) (*hearth.Message, error) {
						select {
						case <-until:
						case <-ctx.Done():
						}
						return nil, nil
					}
				}
				f(t, cfg, until, form != "clear")
			})
		}
	})
}

// manualPeer connects a client, encrypted or not, that reads only when the test calls recv.
func (r *rig) manualPeer(sealed bool) (*encryptedPeer, *rawWire) {
	r.t.Helper()
	conn, err := r.dial()
	must(r.t, err)
	must(r.t, conn.(*net.TCPConn).SetReadBuffer(256<<10))
	w, err := upgrade(conn)
	must(r.t, err)
	r.t.Cleanup(w.close)
	key, err := seal.GenerateKey()
	must(r.t, err)
	data := `"as":"u"`
	if sealed {
		data += fmt.Sprintf(`,"publicKey":%q`, key.PublicKey())
	}
	must(r.t, w.send(opText, []byte(`{"event":"authenticate","data":{`+data+`}}`)))
	p := &peer{t: r.t, wire: w, in: newItemQueue[received]()}
	op, payload, err := w.recv()
	must(r.t, err)
	if op != opText {
		r.t.Fatalf("got opcode %d, want connected", op)
	}
	p.in.put(received{text: string(payload)})
	s := &encryptedPeer{peer: p, key: key}
	if sealed {
		s.takeKeys()
	} else {
		p.welcome()
	}
	return s, w
}

// closeWrite closes the client's side of the connection only.
func (w *rawWire) closeWrite() error { return w.conn.(*net.TCPConn).CloseWrite() }

// TestHalfClosed checks a client that closes its side of the connection, with or without a close
// frame. It still receives all messages that were sent before, with any encryption. The application
// sees it as disconnected at once.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	forEncryptions(t, func(t *testing.T, cfg config, until chan struct{}, sealed bool) {
		halfClosed(t, cfg, until, sealed, cfg.Transport == hearth.TransportAuto)
	})
}

func halfClosed(t *testing.T, cfg config, until chan struct{}, sealed, frame bool) {
	const answers, size = 100, 50_000
	answered, closed := make(chan struct{}), make(chan struct{})
	cfg.Message = func(_ context.Context, c *client, m hearth.Message) error {
		defer close(answered)
		for n := range answers {
			must(t, c.Send("answer", numbered{n, repeat("x", size)}))
		}
		return nil
	}
	cfg.Disconnected = func(context.Context, *client, int, string) { close(closed) }
	cfg.Timeouts.Close = time.Hour // the test may be slow
	r := start(t, cfg)
	s, w := r.manualPeer(sealed)
	must(t, w.send(opText, []byte(`{"event":"last"}`)))
	within(t, answered, "the sending of all answers")
	if frame {
		must(t, w.send(opClose, []byte{0x03, 0xE8}))
	}
	must(t, w.closeWrite())
	within(t, closed, "the call of Disconnected")
	// the target is empty
	if err := r.Local().Send(t.Context(), hearth.ToClient(s.id), "too late", 1); err != nil {
		t.Error(err)
	}
	close(until)

	for n := range answers {
		must(t, w.conn.SetReadDeadline(time.Now().Add(answer)))
		op, payload, err := w.recv()
		if err != nil || op != opText {
			t.Fatalf("got opcode %d (%v) after %d of %d answers", op, err, n, answers)
		}
		s.in.put(received{text: string(payload)})
		want := fmt.Sprintf(`{"event":"answer","data":{"N":%d,"Padding":"%s"}}`, n, repeat("x", size))
		if sealed {
			s.wantsSealed(want)
		} else {
			s.wants(want)
		}
	}
	if frame {
		if op, _, err := w.recv(); op != opClose {
			t.Errorf("got opcode %d (%v), want a close frame", op, err)
		}
	}
	if _, _, err := w.recv(); err != io.EOF {
		t.Errorf("the connection ended with %v", err)
	}
	if st := r.Stats(); st.Dropped != 0 || st.Unsealed != 0 {
		t.Errorf("stats: %+v", st)
	}
}

// TestHalfClosedTooLong checks that the rest of the messages must leave within CloseTimeout, if the
// client does not read or a transformer blocks.
func TestHalfClosedTooLong(t *testing.T) {
	t.Parallel()
	forEncryptions(t, func(t *testing.T, cfg config, until chan struct{}, sealed bool) {
		defer close(until)
		cfg.Timeouts.Close = 20 * time.Millisecond
		r := start(t, cfg)
		s, w := r.manualPeer(sealed)
		for range 100 {
			must(t, r.Local().Send(t.Context(), hearth.ToClient(s.id), "m", repeat("x", 80_000)))
		}
		must(t, w.closeWrite())
		for end := time.After(answer); r.Stats().Connections > 0; {
			select {
			case <-end:
				t.Fatal("the connection is still open")
			case <-time.After(time.Millisecond):
			}
		}
	})
}

// within waits until done is closed, and fails the test after the answer timeout.
func within(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(answer):
		t.Fatalf("%s did not happen within %v", what, answer)
	}
}
