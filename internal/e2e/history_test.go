package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
)

// chatHistory selects the rooms with history of the tests.
var chatHistory = broker.HistoryRules{{Rooms: "chat*", Size: 100, Age: time.Hour}}

// anyRoom is a ValidateRooms that allows all rooms but "secret".
func anyRoom(_ context.Context, _ *client, rooms []string) ([]string, error) {
	return slices.DeleteFunc(rooms, func(room string) bool { return room == "secret" }), nil
}

// chatServer starts a server on the bus.
func chatServer(t testing.TB, bus *memory.Bus) *rig {
	return start(t, config{Broker: bus.Broker(), ValidateRooms: anyRoom})
}

// recovering connects a client that has the extension and recovers messages.
func (r *rig) recovering(user string) *peer {
	r.t.Helper()
	p := r.peer()
	p.text(fmt.Sprintf(`{"event":"authenticate","data":{"As":%q},"hearth":{"version":1,"features":["recovery"]}}`, user))
	var welcome struct {
		Data   struct{ ID string }
		Hearth struct{ Features []string }
	}
	if got := p.next(); json.Unmarshal([]byte(got.text), &welcome) != nil || !slices.Equal(welcome.Hearth.Features, []string{"recovery"}) {
		r.t.Fatalf("got %v", got)
	}
	p.id, p.user = welcome.Data.ID, user
	return p
}

// epochOf returns the epoch of a room.
func epochOf(t testing.TB, r *rig, room string) string {
	t.Helper()
	h, err := r.History(t.Context(), room, hearth.Position{}, 1)
	must(t, err)
	return h.Position.Epoch
}

// says sends the numbers from one to another to a room.
func says(t testing.TB, r *rig, room string, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		must(t, r.Send(t.Context(), hearth.ToRoom(room), "n", i))
	}
}

// positionedNumber is the message with a number, which is its offset, too.
func positionedNumber(room, epoch string, n int) string {
	return fmt.Sprintf(`{"event":"n","data":%d,"room":%q,"offset":%d,"epoch":%q}`, n, room, n, epoch)
}

func (p *peer) wantsPositions(room, epoch string, from, to int) {
	p.t.Helper()
	for i := from; i <= to; i++ {
		p.wants(positionedNumber(room, epoch, i))
	}
}

// TestHistory sends to a room with history from two servers: all clients get the messages in the
// same order, those that recover with positions and the others as ever.
func TestHistory(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{History: chatHistory})
	a, b := chatServer(t, bus), chatServer(t, bus)
	epoch := epochOf(t, a, "chat")
	plain, positioned := a.member("plain"), b.recovering("positioned")
	plain.say("join", `{"rooms":["chat"]}`)
	positioned.text(`{"event":"join","data":{"rooms":["chat","other","secret"],"last":{"other":3}},"id":1}`)
	positioned.wants(`{"event":"join","data":{"joined":[{"room":"chat","offset":0,"epoch":"` + epoch + `"},{"room":"other","unrecovered":"no_history"}],` +
		`"rejected":[{"room":"secret","code":"forbidden"}]},"id":1}`)
	a.joins(plain, "chat")
	const each = 20
	var senders sync.WaitGroup
	for _, r := range []*rig{a, b} {
		senders.Go(func() {
			for i := range each {
				if err := r.Send(t.Context(), hearth.ToRoom("chat"), "n", i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	senders.Wait()
	for i := range 2 * each {
		var m struct {
			Data   json.RawMessage
			Room   string
			Offset int
			Epoch  string
		}
		got := positioned.next()
		if err := json.Unmarshal([]byte(got.text), &m); err != nil || m.Room != "chat" || m.Offset != i+1 || m.Epoch != epoch {
			t.Fatalf("message %d: %v", i, got)
		}
		plain.wants(`{"event":"n","data":` + string(m.Data) + `}`)
	}
	must(t, a.Send(t.Context(), hearth.ToRoom("other"), "last", hearth.NoData{}))
	positioned.wants(`{"event":"last"}`)
}

// joins waits until p is in the room.
func (r *rig) joins(p *peer, room string) {
	r.t.Helper()
	r.counts(func(hearth.Stats) bool { return r.client(p).In(room) })
}

// TestRecovery reconnects clients to another server: they get what they have missed, and then the
// live messages.
func TestRecovery(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{History: chatHistory})
	a, b := chatServer(t, bus), chatServer(t, bus)
	epoch := epochOf(t, a, "chat")
	first := a.recovering("ada")
	first.text(`{"event":"join","data":{"rooms":["chat"]}}`)
	first.wants(`{"event":"join","data":{"joined":[{"room":"chat","offset":0,"epoch":"` + epoch + `"}],"rejected":[]}}`)
	says(t, a, "chat", 1, 5)
	first.wantsPositions("chat", epoch, 1, 5)
	first.wire.close()
	says(t, a, "chat", 6, 20)

	join := func(p *peer, position, want string) {
		t.Helper()
		p.text(`{"event":"join","data":{"rooms":["chat"],` + position + `},"id":"j"}`)
		p.wants(`{"event":"join","data":{"joined":[{"room":"chat",` + want + `}],"rejected":[]},"id":"j"}`)
	}
	at := func(n int, rest string) string { return fmt.Sprintf(`"offset":%d,"epoch":%q%s`, n, epoch, rest) }
	second := b.recovering("ada")
	join(second, `"positions":{"chat":{"offset":5,"epoch":"`+epoch+`"}}`, at(20, `,"recovered":15`))
	second.wantsPositions("chat", epoch, 6, 20)
	says(t, a, "chat", 21, 21)
	second.wantsPositions("chat", epoch, 21, 21)
	join(second, `"positions":{"chat":{"offset":5,"epoch":"`+epoch+`"}}`, at(21, ``)) // it is in the room

	third := b.recovering("bob")
	join(third, `"last":{"chat":2}`, at(21, `,"recovered":2`))
	third.wantsPositions("chat", epoch, 20, 21)
	says(t, b, "chat", 22, 130)
	second.wantsPositions("chat", epoch, 22, 130)
	third.wantsPositions("chat", epoch, 22, 130)

	for name, tt := range map[string]struct{ position, want string }{
		"evicted":       {`"positions":{"chat":{"offset":5,"epoch":"` + epoch + `"}}`, `,"unrecovered":"evicted"`},
		"nothing new":   {`"positions":{"chat":{"offset":130,"epoch":"` + epoch + `"}}`, ``},
		"other epoch":   {`"positions":{"chat":{"offset":130,"epoch":"x"}}`, `,"unrecovered":"reset"`},
		"future":        {`"positions":{"chat":{"offset":131,"epoch":"` + epoch + `"}}`, `,"unrecovered":"reset"`},
		"huge":          {`"positions":{"chat":{"offset":9007199254740993,"epoch":"` + epoch + `"}}`, `,"unrecovered":"invalid"`},
		"negative":      {`"positions":{"chat":{"offset":-1,"epoch":"` + epoch + `"}}`, `,"unrecovered":"invalid"`},
		"not an object": {`"positions":{"chat":7}`, `,"unrecovered":"invalid"`},
		"without":       {`"positions":{}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			p := a.recovering("eve")
			join(p, tt.position, at(130, tt.want))
			p.wire.close()
		})
	}
	if s := b.Stats(); s.Recovered != 17 {
		t.Errorf("stats: %+v", s)
	}
}

// TestRecoveryIsBounded asks for more than the server recovers at a time.
func TestRecoveryIsBounded(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{History: chatHistory})
	r := start(t, config{Broker: bus.Broker(), ValidateRooms: anyRoom, Limits: hearth.Limits{BackpressureLimit: 64 << 10}})
	epoch := epochOf(t, r, "chat")
	for range 20 {
		must(t, r.Send(t.Context(), hearth.ToRoom("chat"), "n", repeat("x", 4<<10)))
	}
	p := r.recovering("ada")
	p.text(`{"event":"join","data":{"rooms":["chat"],"positions":{"chat":{"offset":0,"epoch":"` + epoch + `"}}}}`)
	p.wants(`{"event":"join","data":{"joined":[{"room":"chat","offset":20,"epoch":"` + epoch + `","unrecovered":"limit"}],"rejected":[]}}`)
	p.text(`{"event":"leave","data":{"rooms":["chat"]}}`)
	p.wants(`{"event":"leave","data":{"left":["chat"],"rejected":[]}}`)
	p.text(`{"event":"join","data":{"rooms":["chat"],"last":{"chat":20}}}`) // as many of these as possible
	p.wants(`{"event":"join","data":{"joined":[{"room":"chat","offset":20,"epoch":"` + epoch + `","recovered":7}],"rejected":[]}}`)
	for range 7 {
		p.next()
	}
}

// TestRecoveryExcludes does not send a client what excludes it.
func TestRecoveryExcludes(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{History: chatHistory})
	r := chatServer(t, bus)
	epoch := epochOf(t, r, "chat")
	p := r.recovering("ada")
	must(t, r.Send(t.Context(), hearth.ToRoom("chat"), "n", 1))
	must(t, r.Send(t.Context(), hearth.ToRoom("chat").Except(p.id), "n", 2))
	must(t, r.Send(t.Context(), hearth.ToRoom("chat"), "n", 3))
	p.text(`{"event":"join","data":{"rooms":["chat"],"last":{"chat":10}}}`)
	p.wants(`{"event":"join","data":{"joined":[{"room":"chat","offset":3,"epoch":"` + epoch + `","recovered":2}],"rejected":[]}}`)
	p.wantsPositions("chat", epoch, 1, 1)
	p.wantsPositions("chat", epoch, 3, 3)
}

// TestSlowClientRecovers has a client that reads too slowly: it is closed, has no gap, and recovers
// the rest.
func TestSlowClientRecovers(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		bus := memory.NewBus(memory.Config{History: broker.HistoryRules{{Rooms: "chat", Size: 10_000, Age: time.Hour}}})
		r := start(t, config{
			Broker: bus.Broker(), ValidateRooms: anyRoom, Transport: transport, Limits: hearth.Limits{BackpressureLimit: 64 << 10},
		})
		epoch := epochOf(t, r, "chat")
		w := r.raw()
		must(t, w.send(opText, []byte(`{"event":"authenticate","hearth":{"version":1,"features":["recovery"]}}`)))
		r.counts(func(s hearth.Stats) bool { return s.Authenticated == 1 })
		must(t, w.send(opText, []byte(`{"event":"join","data":{"rooms":["chat"]}}`)))
		r.counts(func(hearth.Stats) bool { return countIn(t, r, "chat") == 1 })
		sent := 0
		for ; r.Stats().SlowClosed == 0; sent++ {
			must(t, r.Send(t.Context(), hearth.ToRoom("chat"), "n", repeat("x", 1000)))
			must(t, r.Local().WaitPending(t.Context(), hearth.ToAll(), 1<<30))
		}
		last := 0
		for p := newPeer(t, w); ; {
			got := p.next()
			if got.code != 0 || got.err != nil {
				if got.err == nil && got.code != 1013 {
					t.Errorf("got %v", got)
				}
				break
			}
			var m struct {
				Event  string
				Offset int
			}
			must(t, json.Unmarshal([]byte(got.text), &m))
			if m.Event != "n" {
				continue
			}
			if m.Offset != last+1 {
				t.Fatalf("message %d after %d", m.Offset, last)
			}
			last = m.Offset
		}
		if last == 0 || last >= sent {
			t.Fatalf("got %d of %d messages", last, sent)
		}
		p := r.recovering("again")
		p.text(fmt.Sprintf(`{"event":"join","data":{"rooms":["chat"],"positions":{"chat":{"offset":%d,"epoch":%q}}}}`, sent-3, epoch))
		p.wants(fmt.Sprintf(`{"event":"join","data":{"joined":[{"room":"chat","offset":%d,"epoch":%q,"recovered":3}],"rejected":[]}}`, sent, epoch))
	})
}

// countIn returns the number of members of a room.
func countIn(t testing.TB, r *rig, room string) int {
	t.Helper()
	n, err := r.Count(t.Context(), hearth.ToRoom(room))
	must(t, err)
	return n
}

// TestHistoryRemoved removes the history of a room: members are told, and positions are void.
func TestHistoryRemoved(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{History: chatHistory})
	a, b := chatServer(t, bus), chatServer(t, bus)
	epoch := epochOf(t, a, "chat")
	p := a.recovering("ada")
	p.text(`{"event":"join","data":{"rooms":["chat"]}}`)
	p.next()
	says(t, a, "chat", 1, 3)
	p.wantsPositions("chat", epoch, 1, 3)
	must(t, b.RemoveHistory(t.Context(), "chat"))
	says(t, a, "chat", 1, 1)
	p.wants(`{"event":"hearth:interrupted","data":{"rooms":["chat"],"reason":"gap"}}`)
	again := epochOf(t, a, "chat")
	if again == epoch {
		t.Fatal("the epoch is the same")
	}
	p.text(fmt.Sprintf(`{"event":"join","data":{"rooms":["chat"],"positions":{"chat":{"offset":3,"epoch":%q}}}}`, epoch))
	p.wants(`{"event":"join","data":{"joined":[{"room":"chat","offset":1,"epoch":"` + again + `","unrecovered":"reset"}],"rejected":[]}}`)
	if _, err := a.History(t.Context(), "chat", hearth.Position{Offset: 3, Epoch: epoch}, 10); !errors.Is(err, hearth.ErrUnrecovered) {
		t.Errorf("read from a void position: %v", err)
	}
	if err := a.RemoveHistory(t.Context(), "other"); !errors.Is(err, hearth.ErrNoHistory) {
		t.Errorf("remove where there is none: %v", err)
	}
}

// TestHistoryAPI reads the history on a server.
func TestHistoryAPI(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{History: chatHistory})
	a, b := chatServer(t, bus), chatServer(t, bus)
	says(t, a, "chat", 1, 5)
	must(t, a.Send(t.Context(), hearth.ToRoom("chat"), "bare", hearth.NoData{}))
	h, err := b.History(t.Context(), "chat", hearth.Position{}, 2)
	must(t, err)
	if len(h.Messages) != 2 || string(h.Messages[0].Data) != "5" || h.Messages[1].Data != nil || h.Messages[1].Event != "bare" || h.Position.Offset != 6 {
		t.Errorf("got %+v", h)
	}
	h, err = b.History(t.Context(), "chat", hearth.Position{Offset: 4, Epoch: h.Position.Epoch}, 10)
	must(t, err)
	if len(h.Messages) != 2 || h.Messages[0].Position.Offset != 5 {
		t.Errorf("got %+v", h)
	}
	if _, err := b.History(t.Context(), "chat", hearth.Position{Offset: 1, Epoch: h.Position.Epoch}, 2); !errors.Is(err, hearth.ErrUnrecovered) {
		t.Errorf("more than the limit: %v", err)
	}
	if _, err := b.History(t.Context(), "plain", hearth.Position{}, 2); !errors.Is(err, hearth.ErrNoHistory) {
		t.Errorf("no history: %v", err)
	}
}

// TestHistoryEncrypted has positions inside of the encrypted messages, also of those that a
// transformer has replaced.
func TestHistoryEncrypted(t *testing.T) {
	t.Parallel()
	for name, transform := range map[string]func(context.Context, *client, hearth.Message) (*hearth.Message, error){
		"sealed": nil,
		"transformed": func(_ context.Context, _ *client, m hearth.Message) (*hearth.Message, error) {
			if m.Event != "n" {
				return nil, nil
			}
			return &hearth.Message{Event: "n", Data: m.Data}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, config{
				Broker: memory.NewBus(memory.Config{History: chatHistory}).Broker(), ValidateRooms: anyRoom, Transform: transform,
				Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional},
			})
			epoch := epochOf(t, r, "chat")
			s := r.encryptedPeer()
			s.text(fmt.Sprintf(`{"event":"authenticate","data":{"publicKey":%q},"hearth":{"version":1,"features":["recovery"]}}`, s.key.PublicKey()))
			s.takeKeys()
			says(t, r, "chat", 1, 2)
			s.sendSealed(`{"event":"join","data":{"rooms":["chat"],"last":{"chat":1}}}`)
			s.wantsSealed(`{"event":"join","data":{"joined":[{"room":"chat","offset":2,"epoch":"` + epoch + `","recovered":1}],"rejected":[]}}`)
			says(t, r, "chat", 3, 4)
			for i := 2; i <= 4; i++ {
				s.wantsSealed(positionedNumber("chat", epoch, i))
			}
		})
	}
}

// TestHistoryCompressed has a client that accepts compressed messages.
func TestHistoryCompressed(t *testing.T) {
	t.Parallel()
	r := start(t, config{
		Broker: memory.NewBus(memory.Config{History: chatHistory}).Broker(), ValidateRooms: anyRoom, Compression: true,
	})
	epoch := epochOf(t, r, "chat")
	p := r.coderPeer(websocket.CompressionNoContextTakeover)
	p.text(`{"event":"authenticate","hearth":{"version":1,"features":["recovery"]}}`)
	p.next()
	long := repeat("x", 1000)
	must(t, r.Send(t.Context(), hearth.ToRoom("chat"), "n", long))
	p.text(`{"event":"join","data":{"rooms":["chat"],"last":{"chat":1}}}`)
	p.wants(`{"event":"join","data":{"joined":[{"room":"chat","offset":1,"epoch":"` + epoch + `","recovered":1}],"rejected":[]}}`)
	must(t, r.Send(t.Context(), hearth.ToRoom("chat"), "n", long))
	for i := 1; i <= 2; i++ {
		p.wants(fmt.Sprintf(`{"event":"n","data":%q,"room":"chat","offset":%d,"epoch":%q}`, long, i, epoch))
	}
}
