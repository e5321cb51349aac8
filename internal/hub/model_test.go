package hub_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"pgregory.net/rapid"
)

const (
	modelLanes = 3
	modelRooms = 4 // limit of one member
)

// model is a simple hub: the members of each room and the messages of each client, in lists.
type model struct {
	hub  *hub.Hub
	all  []*modelClient // including removed ones
	sent int
}

// modelClient is one client in the hub and in the model.
type modelClient struct {
	real  *client
	id    string
	name  string
	user  string
	here  bool
	ended bool
	rooms []string // including its own
	want  []string // events, in order
}

// TestModel sends, joins, leaves, admits and removes at random, while the lanes are behind. It
// compares the hub with the model: the same members, and for each the same messages in the same
// order. The receivers of a message are the members at the time when it is sent, however late the
// lane handles it.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &model{hub: newHub(modelLanes, hub.Config{MaxRooms: modelRooms})}
		t.Repeat(map[string]func(*rapid.T){
			"admit":  m.admit,
			"remove": m.remove,
			"join":   m.join,
			"leave":  m.leave,
			"send":   m.send,
			"direct": m.direct,
			"finish": m.finish,
			"tick":   func(t *rapid.T) { m.hub.Lane(rapid.IntRange(0, modelLanes-1).Draw(t, "lane")).Tick() },
			"":       m.check,
		})
		settle(m.hub, modelLanes)
		for _, p := range m.all {
			if diff := cmp.Diff(p.want, p.real.events()); diff != "" {
				t.Fatalf("%s got (-want +got):\n%s", p.name, diff)
			}
		}
	})
}

func (m *model) pick(t *rapid.T) *modelClient {
	if len(m.all) == 0 {
		t.Skip("no clients yet")
	}
	return rapid.SampledFrom(m.all).Draw(t, "client")
}

// room returns a common name, or the id of a client.
func (m *model) room(t *rapid.T) string {
	names := []string{"a", "b", "c", "d", "e", "f"}
	for _, p := range m.all {
		names = append(names, p.id)
	}
	return rapid.SampledFrom(names).Draw(t, "room")
}

func (m *model) admit(t *rapid.T) {
	name := fmt.Sprint("client", len(m.all))
	p := &modelClient{id: idOf(name).String(), name: name, here: true, want: []string{"connected"}}
	p.user = rapid.SampledFrom([]string{"", "u", "v"}).Draw(t, "user")
	rooms := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID[string]).Draw(t, "rooms")
	p.rooms = append([]string{p.id}, rooms...)
	p.real = admit(m.hub, name, rapid.IntRange(0, modelLanes-1).Draw(t, "lane"), p.user, rooms...)
	m.all = append(m.all, p)
}

func (m *model) remove(t *rapid.T) {
	p := m.pick(t)
	user, rooms, ok := m.hub.Remove(&p.real.Member)
	if ok != p.here {
		t.Fatalf("Remove(%s) = %v, want %v", p.id, ok, p.here)
	}
	if ok && (user != p.user || !sameSet(rooms, p.rooms)) {
		t.Fatalf("Remove(%s) = %q, %q; want %q, %q", p.id, user, rooms, p.user, p.rooms)
	}
	p.here, p.rooms = false, nil
}

func (m *model) join(t *rapid.T) {
	p, name := m.pick(t), m.room(t)
	joined, err := m.hub.Join(&p.real.Member, name)
	others := len(p.rooms)
	if slices.Contains(p.rooms, p.id) {
		others--
	}
	var want error
	switch {
	case !p.here:
		want = hub.ErrNotMember
	case name != p.id && !slices.Contains(p.rooms, name) && others >= modelRooms:
		want = hub.ErrTooManyRooms
	}
	if !errors.Is(err, want) {
		t.Fatalf("Join(%s, %s): %v, want %v", p.id, name, err, want)
	}
	if err != nil {
		return
	}
	if joined == slices.Contains(p.rooms, name) {
		t.Fatalf("Join(%s, %s) = %v", p.id, name, joined)
	}
	if joined {
		p.rooms = append(p.rooms, name)
	}
}

func (m *model) leave(t *rapid.T) {
	p, name := m.pick(t), m.room(t)
	i := slices.Index(p.rooms, name)
	if left := m.hub.Leave(&p.real.Member, name); left != (i >= 0) {
		t.Fatalf("Leave(%s, %s) = %v", p.id, name, left)
	}
	if i >= 0 {
		p.rooms = slices.Delete(p.rooms, i, i+1)
	}
}

func (m *model) members(target hub.Target) (to []*modelClient) {
	for _, p := range m.all {
		in := false
		switch target.Kind {
		case hub.All:
			in = true
		case hub.Client:
			in = p.id == target.Name
		case hub.User:
			in = p.user == target.Name && p.user != ""
		case hub.Room:
			in = slices.Contains(p.rooms, target.Name)
		}
		if in && p.here {
			to = append(to, p)
		}
	}
	return to
}

func (m *model) target(t *rapid.T) hub.Target {
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return toAll()
	case 1:
		return toUser(rapid.SampledFrom([]string{"u", "v", "nobody"}).Draw(t, "user"))
	case 2:
		return toClient(rapid.SampledFrom([]string{"client0", "client1", "client7"}).Draw(t, "id"))
	default:
		return toRoom(m.room(t))
	}
}

func (m *model) send(t *rapid.T) {
	target := m.target(t)
	var exclude []string
	for _, p := range m.all {
		if rapid.IntRange(0, 5).Draw(t, "exclude") == 0 {
			exclude = append(exclude, p.id, p.id) // the same id twice has no further effect
		}
	}
	exclude = append(exclude, "nobody")
	events := []string{m.event()}
	msg := message(events[0])
	if n := rapid.IntRange(1, 4).Draw(t, "messages"); n > 1 {
		for range n - 1 {
			events = append(events, m.event())
		}
		msg = series(events...)
	}
	if err := m.hub.Send(target, msg, exclude); err != nil {
		t.Fatalf("Send: %v", err)
	}
	for _, p := range m.members(target) {
		excluded := slices.Contains(exclude, p.id) && (target.Kind == hub.All || target.Kind == hub.Room)
		if !p.ended && !excluded {
			p.want = append(p.want, events...)
		}
	}
}

func (m *model) event() string {
	m.sent++
	return fmt.Sprint("event", m.sent)
}

func (m *model) direct(t *rapid.T) {
	p, event := m.pick(t), m.event()
	err := m.hub.SendTo(&p.real.Member, message(event))
	if (err == nil) != p.here {
		t.Fatalf("SendTo(%s): %v", p.id, err)
	}
	if p.here && !p.ended {
		p.want = append(p.want, event)
	}
}

// finish closes a client that is still in the index. It gets no later messages.
func (m *model) finish(t *rapid.T) {
	p := m.pick(t)
	if p.ended {
		return
	}
	p.real.Member.CloseAfterFlush(ws.AppendClose(nil, 1000, ""))
	p.ended, p.want = true, append(p.want, "close 1000")
}

// check compares the results of all queries.
func (m *model) check(t *rapid.T) {
	rooms := make(map[string]bool)
	for _, p := range m.all {
		for _, name := range p.rooms {
			if name != p.id {
				rooms[name] = true
			}
		}
		if got := m.hub.MemberRooms(&p.real.Member); !sameSet(got, p.rooms) {
			t.Fatalf("rooms of %s: %q, want %q", p.id, got, p.rooms)
		}
	}
	if got := m.hub.Rooms(nil); !sameSet(got, slices.Collect(maps.Keys(rooms))) || m.hub.CountRooms() != len(rooms) {
		t.Fatalf("rooms: %q, want %v", got, rooms)
	}
	for _, target := range []hub.Target{toAll(), toUser("u"), toUser("v"), toRoom("a"), toRoom(idOf("client0").String()), toClient("client1")} {
		want := m.members(target)
		got := m.hub.Members(nil, target)
		if len(got) != len(want) || m.hub.Count(target) != len(want) {
			t.Fatalf("%v has %d members (counted %d), want %d", target, len(got), m.hub.Count(target), len(want))
		}
		for _, p := range want {
			if !slices.Contains(got, &p.real.Member) {
				t.Fatalf("%v has no member %s", target, p.id)
			}
		}
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
