package hub_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
)

// TestSeries checks that members that get messages one by one, because they are compressed,
// encrypted, transformed or too many, get the messages of a series like that, too.
func TestSeries(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	plain, full := admit(h, "plain", 0, "u", "r"), admit(h, "full", 0, "u", "r")
	slow := admit(h, "slow", 0, "u", "r")
	deflated := connect(h, "deflated", 0)
	deflated.Deflate = true
	h.Admit(&deflated.Member, hub.Admission{User: "u", Rooms: []string{"r"}, Welcome: message("connected")})
	sealed, key := encryptedClient(t, h, "sealed", "u", "r")
	changed := connect(h, "changed", 0)
	h.Admit(&changed.Member, hub.Admission{User: "u", Rooms: []string{"r"}, Welcome: message("connected"), Encryption: &hub.Encryption{
		Transform: func(payload []byte) ([]byte, error) {
			if bytes.Contains(payload, []byte("m3")) {
				return nil, errors.New("not this one")
			}
			return bytes.Replace(payload, []byte(`"event":"m`), []byte(`"event":"changed m`), 1), nil
		},
	}})
	settle(h, 1)
	slow.room, full.room = 3*len(message("m0").Frame()), 0

	var want []string
	before := h.Delivered()
	for i, target := range []hub.Target{toAll(), toRoom("r"), toUser("u")} {
		want = append(want, fmt.Sprint("m", 2*i), fmt.Sprint("m", 2*i+1))
		if err := h.Send(target, series(want[2*i:]...), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, frames := h.Pending(toRoom("r")), 6*len(message("m0").Frame()); got < frames {
		t.Errorf("Pending = %d, want at least %d", got, frames)
	}
	for _, c := range []*client{sealed, changed} {
		settleSealed(t, h, c)
	}
	expect(t, plain, append([]string{"connected"}, want...)...)
	expect(t, deflated, append([]string{"connected"}, want...)...)
	expect(t, slow, append([]string{"connected"}, want[:3]...)...)
	expect(t, full, "connected")
	expectEvents(t, openEvents(t, sealed, key), strings.Split("connected <m0> <m1> <m2> <m3> <m4> <m5>", " ")...)
	expectEvents(t, changed.events(), "connected", "changed m0", "changed m1", "changed m2", "changed m4", "changed m5")
	if slow.dropped != 3 || full.dropped != 6 || h.Dropped() != 9 || changed.unsealed.Load() != 1 {
		t.Errorf("dropped: slow %d, full %d, all %d; not transformed %d", slow.dropped, full.dropped, h.Dropped(), changed.unsealed.Load())
	}
	if got, want := h.Delivered()-before, uint64(6+6+3+6+5); got != want {
		t.Errorf("delivered %d, want %d", got, want)
	}
	if got := h.Pending(toAll()); got != 0 {
		t.Errorf("Pending = %d at the end, want 0", got)
	}
	h.Wait()
}

// TestSeriesToOne sends series to one client, which accepts a part of the first, none, and all.
func TestSeriesToOne(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	c := admit(h, "c", 0, "")
	sealed, key := encryptedClient(t, h, "sealed", "")
	settle(h, 1)
	size := len(message("m0").Frame())
	for i, room := range []int{size, 0, -1} {
		c.room = room
		for _, to := range []string{"c", "sealed"} {
			if err := h.Send(toClient(to), series(fmt.Sprint("m", 2*i), fmt.Sprint("m", 2*i+1)), nil); err != nil {
				t.Fatal(err)
			}
		}
		settle(h, 1)
	}
	settleSealed(t, h, sealed)
	expect(t, c, "connected", "m0", "m4", "m5")
	expectEvents(t, openEvents(t, sealed, key), strings.Split("connected <m0> <m1> <m2> <m3> <m4> <m5>", " ")...)
	if c.dropped != 3 || h.Delivered() != 2+3+6 {
		t.Errorf("dropped %d, delivered %d; want 3 and 11", c.dropped, h.Delivered())
	}
}

// TestSeriesCompressed checks that each message of a series is compressed.
func TestSeriesCompressed(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	c := connect(h, "c", 0)
	c.Deflate = true
	h.Admit(&c.Member, hub.Admission{Welcome: message("connected")})
	settle(h, 1)
	c.got = nil
	msg := ws.BuildSeries(3, 0, func(dst []byte, i int) []byte {
		return fmt.Appendf(dst, `{"event":"m%d","data":%q}`, i, strings.Repeat("again ", 500))
	})
	if err := h.Send(toAll(), msg, nil); err != nil {
		t.Fatal(err)
	}
	settle(h, 1)
	expect(t, c, "m0", "m1", "m2")
	if 5*len(c.got) > len(msg.Frame()) {
		t.Errorf("%d bytes compressed to %d", len(msg.Frame()), len(c.got))
	}
}
