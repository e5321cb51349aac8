package hub_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/seal"
)

// newEncryptedMembers is like newMembers, and the members are encrypted.
func newEncryptedMembers(b *testing.B, n int) (*hub.Hub, []*sink) {
	b.Helper()
	h := newHub(1, hub.Config{BackpressureLimit: 1 << 24})
	all := make([]*sink, n)
	for i := range all {
		all[i] = new(sink)
		all[i].Init(idOf(fmt.Sprint("client", i)), all[i], h.Lane(0), all[i])
		h.Admit(&all[i].Member, hub.Admission{
			User: fmt.Sprint("user", i), Rooms: []string{"ws-default"}, Welcome: message("connected"),
			Encryption: &hub.Encryption{Cipher: cipher(b)},
		})
	}
	settle(h, 1)
	return h, all
}

func cipher(t testing.TB) *seal.Cipher {
	t.Helper()
	own, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	c, err := own.Derive(peer.PublicKey(), seal.NewSalt())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// deliver gives the lane turns until that many messages have been delivered.
func deliver(h *hub.Hub, n uint64) {
	for h.Delivered() < n {
		if !h.Lane(0).Tick() {
			runtime.Gosched()
		}
	}
}

// BenchmarkSealedFanOut sends one message to 1,000 encrypted members, with everything except the
// system calls.
func BenchmarkSealedFanOut(b *testing.B) {
	for _, batch := range []uint64{1, 16} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			h, _ := newEncryptedMembers(b, 1000)
			b.ReportAllocs()
			for i := uint64(1); b.Loop(); i++ {
				_ = h.Send(toRoom("ws-default"), encode(), nil)
				if i%batch == 0 {
					deliver(h, 1000+i*1000)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/delivery")
		})
	}
}

// BenchmarkSealedSendTo sends one message to each of 1,000 encrypted members in turn.
func BenchmarkSealedSendTo(b *testing.B) {
	h, all := newEncryptedMembers(b, 1000)
	msg := encode()
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		_ = h.SendTo(&all[i%len(all)].Member, msg)
		deliver(h, uint64(len(all)+i))
	}
}

// fullSink is a member whose connection is full.
type fullSink struct{ sink }

func (f *fullSink) Buffered() int        { return 100 << 10 }
func (f *fullSink) NotifyBelow(int) bool { return true }

// BenchmarkTurnWithHeld takes a turn with a message to one member, beside that many encrypted
// members whose connections are full.
func BenchmarkTurnWithHeld(b *testing.B) {
	for _, held := range []int{0, 10_000} {
		b.Run(fmt.Sprint(held), func(b *testing.B) {
			h, all := newMembers(b, 1)
			key := cipher(b) // one key for all members is sufficient: the test opens no message
			for i := range held {
				f := new(fullSink)
				f.Init(idOf(fmt.Sprint("full", i)), f, h.Lane(0), f)
				h.Admit(&f.Member, hub.Admission{Rooms: []string{"full"}, Welcome: message("connected"), Encryption: &hub.Encryption{Cipher: key}})
			}
			settle(h, 1)
			_ = h.Send(toRoom("full"), encode(), nil)
			settle(h, 1)
			msg := encode()
			b.ReportAllocs()
			for b.Loop() {
				_ = h.SendTo(&all[0].Member, msg)
				h.Lane(0).Tick()
			}
		})
	}
}

// BenchmarkPending measures Pending of 10,000 unencrypted members without messages, alone and with
// one encrypted member.
func BenchmarkPending(b *testing.B) {
	for _, encrypted := range []int{0, 1} {
		b.Run(fmt.Sprint(encrypted), func(b *testing.B) {
			h := newHub(1, hub.Config{Backlogged: func(int) bool { return false }})
			for i := range 10_000 + encrypted {
				s, a := new(sink), hub.Admission{Rooms: []string{"ws-default"}, Welcome: message("connected")}
				s.Init(idOf(fmt.Sprint("client", i)), s, h.Lane(0), s)
				if i == 10_000 {
					a.Encryption = &hub.Encryption{Cipher: cipher(b)}
				}
				h.Admit(&s.Member, a)
			}
			settle(h, 1)
			b.ReportAllocs()
			for b.Loop() {
				if n := h.Pending(toRoom("ws-default")); n != 0 {
					b.Fatalf("%d bytes pending", n)
				}
			}
		})
	}
}
