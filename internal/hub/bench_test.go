package hub_test

import (
	"fmt"
	"testing"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// sink is a member whose connection discards what is written.
type sink struct {
	hub.Member
	n int
}

func (s *sink) Write(p []byte) bool                   { s.n += len(p); return true }
func (s *sink) WriteNow(p []byte) bool                { return s.Write(p) }
func (s *sink) CloseAfterFlush([]byte)                {}
func (s *sink) Recall(func([]byte, int) int) [][]byte { return nil }
func (s *sink) NotifyBelow(int) bool                  { return false }
func (s *sink) Closing() bool                         { return false }
func (s *sink) Buffered() int                         { return 0 }
func (s *sink) Dropped(int) bool                      { return false }
func (s *sink) Unsealed(error)                        {}
func (s *sink) CloseDelayed()                         {}

func newMembers(b *testing.B, n int) (*hub.Hub, []*sink) {
	b.Helper()
	h := newHub(1, hub.Config{})
	all := make([]*sink, n)
	for i := range all {
		all[i] = new(sink)
		all[i].Init(idOf(fmt.Sprint("client", i)), all[i], h.Lane(0), all[i])
		h.Admit(&all[i].Member, hub.Admission{
			User: fmt.Sprint("user", i), Rooms: []string{"ws-default", "ws-notification"}, Welcome: message("connected"),
		})
	}
	settle(h, 1)
	return h, all
}

var data = []byte(`"` + string(make100()) + `"`)

func make100() []byte {
	b := make([]byte, 100)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return b
}

// BenchmarkFanOut sends one message to 1,000 members, and includes the encoding. 16 messages in a
// turn share their writes.
func BenchmarkFanOut(b *testing.B) {
	for _, batch := range []int{1, 16} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			h, _ := newMembers(b, 1000)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_ = h.Send(toRoom("ws-default"), encode(), nil)
				if i%batch == 0 {
					settle(h, 1)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/delivery")
		})
	}
}

func BenchmarkFanOutExcluding(b *testing.B) {
	h, all := newMembers(b, 1000)
	exclude := []string{all[7].ID()}
	b.ReportAllocs()
	for b.Loop() {
		_ = h.Send(toRoom("ws-default"), encode(), exclude)
		settle(h, 1)
	}
}

func BenchmarkJoinLeave(b *testing.B) {
	h, all := newMembers(b, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m := &all[i%len(all)].Member
		_, _ = h.Join(m, "room")
		h.Leave(m, "room")
	}
}

func BenchmarkAdmitRemove(b *testing.B) {
	h, all := newMembers(b, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m := &all[i%len(all)].Member
		h.Remove(m)
		h.Admit(m, hub.Admission{User: "user", Rooms: []string{"ws-default", "ws-notification"}, Welcome: message("connected")})
		settle(h, 1)
	}
}

func BenchmarkSendTo(b *testing.B) {
	h, all := newMembers(b, 1000)
	msg := encode()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_ = h.SendTo(&all[i%len(all)].Member, msg)
		settle(h, 1)
	}
}

func BenchmarkEncode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		encode()
	}
}

func encode() *ws.Message {
	msg, _ := ws.BuildMessage(len(data)+32, func(dst []byte) ([]byte, error) {
		return protocol.AppendEvent(dst, "message", data), nil
	})
	return msg
}

// BenchmarkClient finds one of 10,000 members by its id, and no member by the name of a room.
func BenchmarkClient(b *testing.B) {
	h, all := newMembers(b, 10_000)
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.ID()
	}
	b.Run("found", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			h.Client(names[i%len(names)])
		}
	})
	b.Run("room", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Client("ws-default")
		}
	})
}

// BenchmarkJoinLeaveOfMany is like BenchmarkJoinLeave, with 100 members in the same 1,000 rooms.
func BenchmarkJoinLeaveOfMany(b *testing.B) {
	h, all := newMembers(b, 100)
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("room", i)
		for _, s := range all {
			_, _ = h.Join(&s.Member, names[i])
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m := &all[i%len(all)].Member
		h.Leave(m, names[i%len(names)])
		_, _ = h.Join(m, names[i%len(names)])
	}
}
