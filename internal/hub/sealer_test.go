package hub_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/hub"
)

// TestSealedMessagesDoNotWaitForAnotherWake checks that a loop that sleeps until it is woken, like
// a real one, writes all messages. Messages that were sealed while it wrote others have used up
// their wake.
func TestSealedMessagesDoNotWaitForAnotherWake(t *testing.T) {
	t.Parallel()
	const members, rounds = 2000, 40
	wake := make(chan struct{}, 1)
	h := newHub(1, hub.Config{Wake: func(int) {
		select {
		case wake <- struct{}{}:
		default:
		}
	}})
	key := cipher(t) // one key for all members is sufficient: the test opens no message
	for i := range members {
		c := connect(h, fmt.Sprint("client", i), 0)
		h.Admit(&c.Member, hub.Admission{
			Rooms: []string{"ws-default"}, Welcome: message("connected"), Encryption: &hub.Encryption{Cipher: key},
		})
	}
	settle(h, 1)
	for round := range uint64(rounds) {
		timeout := time.After(time.Minute)
		if err := h.Send(toRoom("ws-default"), message("m"), nil); err != nil {
			t.Fatal(err)
		}
		for h.Delivered() < (round+2)*members {
			select {
			case <-wake:
			case <-timeout:
				t.Fatalf("round %d: %d messages delivered, want %d, and the loop sleeps", round, h.Delivered(), (round+2)*members)
			}
			for more := true; more; more = h.Lane(0).Tick() {
				for range 100 {
					runtime.Gosched() // lets the workers seal messages meanwhile
				}
				select {
				case <-wake: // the next turn serves all earlier wakes
				default:
				}
			}
		}
	}
}
