package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/seal"
)

// visitor is an encrypted client of a storm. It uses the built-in handshake, or later a key
// exchange of its own.
type visitor struct {
	t      *testing.T
	conn   net.Conn
	wire   *rawWire
	key    *seal.PrivateKey
	later  bool
	cipher *seal.Cipher // set once the client is encrypted
	last   int          // the last number that it received
}

// visit connects a visitor, lets it send and receive, and closes it in the middle.
func visit(r *rig, rnd *rand.Rand) {
	conn, err := r.dial()
	if err != nil {
		return // the server is shutting down
	}
	defer conn.Close()
	w, err := upgrade(conn)
	if err != nil {
		return
	}
	key, err := seal.GenerateKey()
	if err != nil {
		r.t.Error(err)
		return
	}
	v := &visitor{t: r.t.(*testing.T), conn: conn, wire: w, key: key, later: rnd.IntN(3) == 0, last: -1}
	data := fmt.Sprintf(`"as":"u%d"`, rnd.IntN(5))
	if !v.later {
		data += fmt.Sprintf(`,"publicKey":%q`, key.PublicKey())
	}
	_ = w.send(opText, []byte(`{"event":"authenticate","data":{`+data+`}}`))
	read := make(chan struct{})
	if rnd.IntN(4) > 0 {
		go func() { // ends with the connection
			defer close(read)
			v.read()
		}()
	} else {
		close(read)
	}
	v.talk(rnd)
	if rnd.IntN(2) == 0 {
		select {
		case <-read:
		case <-time.After(time.Duration(rnd.IntN(20)) * time.Millisecond):
		}
	}
	conn.Close()
	<-read
}

// talk sends various messages, and at some point the key.
func (v *visitor) talk(rnd *rand.Rand) {
	for range rnd.IntN(30) {
		text := `{"event":"m","data":1}`
		switch rnd.IntN(8) {
		case 0:
			text = "nonsense"
		case 1:
			if rnd.IntN(10) == 0 {
				text = `{"event":"encrypted","data":{"iv":"AAECAwQFBgcICQoL","ct":"AAAA"}}`
			}
		case 2:
			if v.later {
				text = fmt.Sprintf(`{"event":"key","data":{"publicKey":%q}}`, v.key.PublicKey())
			}
		case 3:
			if v.wire.send(opPing, []byte("p")) != nil {
				return
			}
		}
		if v.wire.send(opText, []byte(text)) != nil {
			return
		}
	}
}

// read checks that messages are encrypted exactly when there is a key, and that the numbers are in
// order.
func (v *visitor) read() {
	for {
		op, payload, err := v.wire.recv()
		if err != nil {
			return
		}
		if op != opText {
			continue
		}
		event, data, err := v.open(payload)
		switch {
		case err != nil:
		case event == "connected" || event == "keys":
			err = v.deriveFrom(data)
		case event == "number":
			var n int
			if err = json.Unmarshal(data, &n); err == nil && n <= v.last {
				err = fmt.Errorf("number %d after %d", n, v.last)
			}
			v.last = n
		}
		if err != nil {
			v.t.Errorf("%v: %.100s", err, payload)
			return
		}
	}
}

func (v *visitor) open(payload []byte) (event string, data json.RawMessage, err error) {
	var e struct {
		Event string
		Data  json.RawMessage
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return "", nil, err
	}
	if (e.Event == "encrypted") != (v.cipher != nil) {
		return "", nil, fmt.Errorf("unexpected form of a message while encryption is %v", v.cipher != nil)
	}
	if v.cipher == nil {
		return e.Event, e.Data, nil
	}
	inner, err := v.cipher.OpenData(nil, e.Data)
	if err != nil {
		return "", nil, err
	}
	return e.Event, e.Data, json.Unmarshal(inner, &e)
}

func (v *visitor) deriveFrom(data json.RawMessage) error {
	var k struct{ ServerPublicKey, Key, Salt string }
	if err := json.Unmarshal(data, &k); err != nil {
		return err
	}
	text := k.ServerPublicKey + k.Key
	if text == "" {
		if !v.later {
			return errors.New("connected without a key")
		}
		return nil
	}
	public, err := seal.ParsePublicKey(text)
	if err != nil {
		return err
	}
	salt, err := seal.ParseSalt(k.Salt)
	if err != nil {
		return err
	}
	v.cipher, err = v.key.Derive(public, salt)
	return err
}

// unreliableTransform is a transformer that returns every kind of result.
func unreliableTransform(ctx context.Context, _ *client, m hearth.Message) (*hearth.Message, error) {
	switch rand.IntN(12) {
	case 0:
		panic("storm")
	case 1:
		runtime.Goexit()
	case 2:
		return nil, errors.New("storm")
	case 3:
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rand.IntN(5)) * time.Millisecond):
		}
	case 4:
		return &hearth.Message{Event: m.Event, Data: m.Data}, nil
	}
	return nil, nil
}

// TestEncryptedStorm connects clients that enable encryption at once or later and disconnect, while
// messages are sent to them, sealed and transformed. Each client receives its messages encrypted
// and in order, and no state is left at the end.
func TestEncryptedStorm(t *testing.T) {
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for name, transform := range map[string]func(context.Context, *client, hearth.Message) (*hearth.Message, error){"sealed": nil, "transformed": unreliableTransform} {
			for _, closeSlow := range []bool{false, true} {
				t.Run(fmt.Sprint(name, closeSlow), func(t *testing.T) {
					t.Parallel()
					encryptedStorm(t, config{
						Transport: transport, Loops: 2, Timeouts: hearth.Timeouts{Close: 200 * time.Millisecond}, Limits: hearth.Limits{BackpressureLimit: 64 << 10, CloseOnBackpressure: closeSlow},
						Compression: true, Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional, BatchLimit: 3},
						Transform: transform, Message: exchangeKeys,
					})
				})
			}
		}
	})
}

func encryptedStorm(t *testing.T, cfg config) {
	ctx, stop := context.WithTimeout(t.Context(), stormTime()+answer)
	defer stop()
	r := start(t, cfg)
	exercised := func() bool {
		st := r.Stats()
		return st.KeysAgreed > 0 && st.Delivered > 0 && (cfg.Transform == nil || st.Unsealed > 0)
	}
	var all sync.WaitGroup
	for i := range 8 {
		rnd := rand.New(rand.NewPCG(uint64(i), 4))
		all.Go(func() { // ends with ctx
			for ctx.Err() == nil {
				visit(r, rnd)
			}
		})
	}
	all.Go(func() { // ends with ctx
		for n := 0; ctx.Err() == nil; n++ {
			_ = r.Local().Send(t.Context(), hearth.ToAll(), "number", n)
			if n%10 == 0 {
				_ = r.Local().Send(t.Context(), hearth.ToUser(fmt.Sprint("u", n%5)), "x", repeat("x", rand.IntN(40_000)))
				_ = r.Local().WaitPending(ctx, hearth.ToAll(), 32<<10)
			}
		}
	})
	for over := time.After(stormTime()); ; { // and until every kind of message was seen
		select {
		case <-ctx.Done():
			t.Fatalf("the clients did not exercise every path: %+v", r.Stats())
		case <-over:
			over = time.After(10 * time.Millisecond)
		}
		if exercised() {
			break
		}
	}
	stop()
	late, cancel := context.WithTimeout(context.Background(), answer)
	defer cancel()
	if err := r.Shutdown(late); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	all.Wait()
	st := r.Stats()
	if st.Connections != 0 || st.Clients != 0 || st.Rooms != 0 || st.Unauthenticated != 0 || st.Encrypted != 0 {
		t.Errorf("state left after Shutdown: %+v", st)
	}
	if cfg.Transform == nil && st.Unsealed > 0 {
		t.Errorf("%d messages were not sealed, want 0", st.Unsealed)
	}
}
