package hub_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
)

// bufferingClient is a client whose connection keeps what is written until the end of the turn,
// like a real one.
type bufferingClient struct{ client }

func (p *bufferingClient) Write(b []byte) bool {
	p.buffered.Add(int64(len(b)))
	return p.client.Write(b)
}

// TestSealedMessagesDoNotWaitForAnEmptyConnection checks a connection that is full only until the
// end of the turn. Nothing wakes the loop for it later.
func TestSealedMessagesDoNotWaitForAnEmptyConnection(t *testing.T) {
	t.Parallel()
	wake := make(chan struct{}, 1)
	h := newHub(1, hub.Config{Wake: func(int) {
		select {
		case wake <- struct{}{}:
		default:
		}
	}})
	admit(h, "other", 0, "")
	p := &bufferingClient{client{room: -1}}
	p.Init(idOf("p"), p, h.Lane(0), p)
	h.Admit(&p.Member, hub.Admission{Welcome: message("connected"), Encryption: &hub.Encryption{Cipher: cipher(t)}})
	settle(h, 1)

	large := strings.Repeat("x", 100<<10)
	for i := range 3 {
		if err := h.SendTo(&p.Member, ws.NewMessage(fmt.Appendf(nil, `{"event":"m%d","data":%q}`, i, large))); err != nil {
			t.Fatal(err)
		}
	}
	timeout := time.After(time.Minute)
	for beside := uint64(0); h.Delivered() < 2+3+beside; {
		select {
		case <-wake:
		case <-timeout:
			t.Fatalf("%d messages delivered of %d, and the loop sleeps", h.Delivered(), 2+3+beside)
		}
		send(t, h, toClient("other"), "beside") // so that sealed messages are not written at once
		beside++
		select {
		case <-wake: // the next turn follows
		default:
		}
		for more := true; more; {
			more = h.Lane(0).Tick()
			if p.awaited > 0 {
				more = true // a real loop has written, and takes another turn
			}
			p.drain(0)
		}
	}
	h.Wait()
}
