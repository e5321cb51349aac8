package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/seal"
)

// encryptedClient admits a client that is encrypted from its welcome on.
func encryptedClient(t testing.TB, h *hub.Hub, name, user string, rooms ...string) (*client, *seal.Cipher) {
	t.Helper()
	c, key := connect(h, name, 0), cipher(t)
	h.Admit(&c.Member, hub.Admission{User: user, Rooms: rooms, Welcome: message("connected"), Encryption: &hub.Encryption{Cipher: key}})
	return c, key
}

// settleSealed gives the lane turns until all messages of c are sealed and written.
func settleSealed(t testing.TB, h *hub.Hub, c *client) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		if !h.Lane(0).Tick() && c.Member.Buffered() == int(c.buffered.Load()) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes are still pending", c.Member.Buffered())
		}
	}
}

// openEvents returns the events of c. The encrypted ones, which key opens, are in <>.
func openEvents(t testing.TB, c *client, key *seal.Cipher) (events []string) {
	t.Helper()
	var in opener
	end := ws.NewEndpoint(ws.Client, 1<<20, true)
	if err := end.Feed(bytes.Clone(c.got), &in); err != nil {
		t.Fatal(err)
	}
	for _, text := range in.texts {
		var e struct {
			Event string
			Data  json.RawMessage
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			events = append(events, text)
			continue
		}
		if e.Event != "encrypted" {
			events = append(events, e.Event)
			continue
		}
		inner, err := key.OpenData(nil, e.Data)
		if err == nil {
			err = json.Unmarshal(inner, &e)
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, "<"+e.Event+">")
	}
	return events
}

type opener struct{ texts []string }

func (o *opener) Message(_ ws.Opcode, payload []byte) { o.texts = append(o.texts, string(payload)) }
func (o *opener) Ping([]byte)                         { o.texts = append(o.texts, "ping") }
func (o *opener) Pong([]byte)                         { o.texts = append(o.texts, "pong") }
func (o *opener) Close(code int, _ string)            { o.texts = append(o.texts, fmt.Sprint("close ", code)) }

func expectEvents(t testing.TB, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestSealedPaths sends messages on all paths. They arrive in order, and the close frame after
// them.
func TestSealedPaths(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	plain := admit(h, "plain", 0, "", "r")
	c, key := encryptedClient(t, h, "c", "u", "r")
	c.Member.Notice(message("error"))
	want := []string{"connected", "<error>"}
	for i := range 100 {
		event := fmt.Sprint("m", i)
		send(t, h, []hub.Target{toAll(), toRoom("r"), toUser("u"), toClient("c"), toRoom(c.ID())}[i%5], event)
		if want = append(want, "<"+event+">"); i%7 == 0 {
			h.Lane(0).Tick()
		}
	}
	send(t, h, toRoom("r"), "not for c", "c")
	large := strings.Repeat("x", 50_000)
	if err := h.SendTo(&c.Member, ws.NewMessage([]byte(`{"event":"large","data":"`+large+`"}`))); err != nil {
		t.Fatal(err)
	}
	h.Remove(&c.Member)
	c.Member.CloseAfterFlush(ws.AppendClose(nil, 1001, ""))
	c.Member.Notice(message("too late"))
	h.Lane(0).Tick()
	if c.finished || c.closeDelayed != 1 {
		t.Errorf("finished is %v before all messages were sealed, want false; closeDelayed is %d, want 1", c.finished, c.closeDelayed)
	}
	settleSealed(t, h, c)
	expectEvents(t, openEvents(t, c, key), append(want, "<large>", "close 1001")...)
	if n := h.Encrypted(); n != 0 {
		t.Errorf("Encrypted() = %d after the last one has left", n)
	}
	if got := plain.events(); len(got) != 1+40+1 {
		t.Errorf("the unencrypted client got %d events", len(got))
	}
	h.Wait()
}

// TestSealedWindow checks that nothing is sealed for a full connection, and that the waiting
// messages count.
func TestSealedWindow(t *testing.T) {
	t.Parallel()
	const limit = 256 << 10
	h := newHub(1, hub.Config{BackpressureLimit: limit})
	c, key := encryptedClient(t, h, "c", "u")
	settle(h, 1)
	c.buffered.Store(100 << 10)
	before := len(c.got)
	sent := 0
	for ; c.dropped == 0; sent++ {
		if err := h.SendTo(&c.Member, message(fmt.Sprint("m", sent))); err != nil {
			t.Fatal(err)
		}
		h.Lane(0).Tick()
	}
	if n := h.Pending(toClient("c")); n <= limit-1000 || n > limit {
		t.Errorf("Pending = %d, limit is %d", n, limit)
	}
	if len(c.got) != before {
		t.Errorf("%d bytes were sealed for a full connection", len(c.got)-before)
	}
	c.drain(0)
	settleSealed(t, h, c)
	got := openEvents(t, c, key)
	if len(got) != sent || got[1] != "<m0>" || got[sent-1] != fmt.Sprintf("<m%d>", sent-2) || c.dropped != 1 {
		t.Errorf("%d events for %d messages, %d dropped", len(got), sent, c.dropped)
	}
}

// TestSealedForClosedConnection checks that messages for a closed connection are neither counted as
// dropped nor kept.
func TestSealedForClosedConnection(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	c, _ := encryptedClient(t, h, "c", "u", "r")
	settle(h, 1)
	c.gone = true
	for i := range 5000 {
		send(t, h, toRoom("r"), fmt.Sprint("m", i))
	}
	settleSealed(t, h, c)
	if c.dropped != 0 || h.Dropped() != 0 || h.Pending(toAll()) != 0 {
		t.Errorf("%d messages were counted as dropped, %d bytes are pending", c.dropped, h.Pending(toAll()))
	}
}

// TestSwitchRecalls checks that, of the frames in the connection, only the one of which a part was
// written is sent unencrypted.
func TestSwitchRecalls(t *testing.T) {
	t.Parallel()
	for _, deflate := range []bool{false, true} {
		h := newHub(1, hub.Config{})
		c := connect(h, "c", 0)
		c.Deflate = deflate
		h.Admit(&c.Member, hub.Admission{Welcome: message("connected")})
		for i := range 4 {
			payload := `{"event":"` + fmt.Sprint("m", i) + `","data":"` + strings.Repeat("again ", 100) + `"}`
			if err := h.SendTo(&c.Member, ws.NewMessage([]byte(payload))); err != nil {
				t.Fatal(err)
			}
			if settle(h, 1); i == 0 {
				c.kept = len(c.got) + 1 // a part of the next frame was written
			}
		}
		c.Member.Control(ws.AppendFrame(nil, ws.OpPing, nil))
		key, done := cipher(t), make(chan error, 1)
		go func() { // ends with the switch
			done <- h.SwitchToEncrypted(context.Background(), nil, &c.Member, hub.Switchover{Encryption: hub.Encryption{Cipher: key}, Last: message("keys")})
		}()
		for !c.Member.Encrypted() {
			h.Lane(0).Tick()
			runtime.Gosched()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		send(t, h, toAll(), "after")
		settleSealed(t, h, c)
		expectEvents(t, openEvents(t, c, key), "connected", "m0", "m1", "ping", "keys", "<m2>", "<m3>", "<after>")
		if n := h.Delivered(); n != 7 {
			t.Errorf("Delivered() = %d, want 7", n)
		}
		gone := make(chan struct{})
		close(gone)
		h.Remove(&c.Member)
		if err := h.SwitchToEncrypted(context.Background(), gone, &c.Member, hub.Switchover{}); !errors.Is(err, hub.ErrNotMember) {
			t.Errorf("SwitchToEncrypted of a removed client: %v", err)
		}
	}
}

// TestSwitchKeepsMessagesThatGrow checks that accepted messages are not dropped because their
// sealed form is longer.
func TestSwitchKeepsMessagesThatGrow(t *testing.T) {
	t.Parallel()
	const limit, messages = 4000, 10
	transforms := map[string]func([]byte) ([]byte, error){"sealed": nil, "transformed": func([]byte) ([]byte, error) { return nil, nil }}
	for name, transform := range transforms {
		h := newHub(1, hub.Config{BackpressureLimit: limit})
		c, want := admit(h, "c", 0, ""), []string{"connected"}
		settle(h, 1)
		c.kept = len(c.got)
		for i := range messages {
			payload := fmt.Sprintf(`{"event":"m%d","data":%q}`, i, strings.Repeat("x", limit/messages-50))
			if err := h.SendTo(&c.Member, ws.NewMessage([]byte(payload))); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("<m%d>", i))
		}
		settle(h, 1)
		key, done := cipher(t), make(chan error, 1)
		go func() { // ends with the switch
			done <- h.SwitchToEncrypted(context.Background(), nil, &c.Member, hub.Switchover{Encryption: hub.Encryption{Cipher: key, Transform: transform}})
		}()
		for !c.Member.Encrypted() {
			h.Lane(0).Tick()
			runtime.Gosched()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		settleSealed(t, h, c)
		if expectEvents(t, openEvents(t, c, key), want...); c.dropped > 0 {
			t.Errorf("%s: %d messages were dropped", name, c.dropped)
		}
		h.Wait()
	}
}

// TestSwitchWithBackpressure checks that the application gets an error if the client cannot get the
// last unencrypted message, and so cannot open the following ones.
func TestSwitchWithBackpressure(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	c := admit(h, "c", 0, "")
	settle(h, 1)
	c.kept, c.room = len(c.got), 10
	done := make(chan error, 1)
	go func() { // ends with the switch
		done <- h.SwitchToEncrypted(context.Background(), nil, &c.Member, hub.Switchover{Encryption: hub.Encryption{Cipher: cipher(t)}, Last: message("keys")})
	}()
	for !c.Member.Encrypted() {
		h.Lane(0).Tick()
		runtime.Gosched()
	}
	if err := <-done; !errors.Is(err, hub.ErrBackpressure) || c.dropped != 1 {
		t.Errorf("SwitchToEncrypted: %v; %d messages were dropped, want 1", err, c.dropped)
	}
	send(t, h, toAll(), "after")
	settleSealed(t, h, c)
	expectEvents(t, c.events(), "connected")
}
