package hub

import (
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/seal"
)

// nullMember is a member whose connection accepts everything.
type nullMember struct{ Member }

func (*nullMember) Write([]byte) bool                     { return true }
func (*nullMember) WriteNow([]byte) bool                  { return true }
func (*nullMember) CloseAfterFlush([]byte)                {}
func (*nullMember) Recall(func([]byte, int) int) [][]byte { return nil }
func (*nullMember) NotifyBelow(int) bool                  { return false }
func (*nullMember) Buffered() int                         { return 0 }
func (*nullMember) Closing() bool                         { return false }
func (*nullMember) Dropped(int) bool                      { return false }
func (*nullMember) Unsealed(error)                        {}
func (*nullMember) CloseDelayed()                         {}

// TestSealedBytesAreBounded checks that the pool does not seal all messages for a loop that takes
// no turns, and that it continues when the loop takes turns again.
func TestSealedBytesAreBounded(t *testing.T) {
	t.Parallel()
	const members = 600
	wake := make(chan struct{}, 1)
	h := New(Config{Lanes: 1, Wake: func(int) {
		select {
		case wake <- struct{}{}:
		default:
		}
	}})
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := key.Derive(key.PublicKey(), seal.NewSalt())
	if err != nil {
		t.Fatal(err)
	}
	for i := range members {
		m := new(nullMember)
		m.Init(ID{byte(i >> 8), byte(i)}, m, h.Lane(0), m)
		h.Admit(&m.Member, Admission{Welcome: ws.NewMessage([]byte(`{}`)), Encryption: &Encryption{Cipher: cipher}})
	}
	l := h.Lane(0)
	turns := func() {
		for more := true; more; more = l.Tick() {
		}
	}
	turns()
	large := ws.NewMessage([]byte(`{"event":"m","data":"` + strings.Repeat("x", 20_000) + `"}`))
	if err := h.Send(Target{}, large, nil); err != nil {
		t.Fatal(err)
	}
	l.Tick()
	h.sealPool.done.Wait() // all workers have ended
	l.sealer.mu.Lock()
	bytes := l.sealer.bytes
	l.sealer.mu.Unlock()
	if most := maxSealedBytes + h.sealPool.maxWorkers*batchMembers*maxSealBytes; bytes < maxSealedBytes || bytes > most {
		t.Errorf("%d bytes were sealed, want %d to %d", bytes, maxSealedBytes, most)
	}
	timeout := time.After(time.Minute)
	for h.Delivered() < 2*members {
		select {
		case <-wake:
			turns()
		case <-timeout:
			t.Fatalf("%d of %d messages delivered, and the loop sleeps", h.Delivered(), 2*members)
		}
	}
	h.Wait()
}
