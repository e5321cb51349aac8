package hub_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hearthws/hearth/internal/hub"
)

// TestMaxRoomsWhileTheyChange checks the bound for members with and without a user, after they
// joined and left other rooms.
func TestMaxRoomsWhileTheyChange(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"", "u"} {
		h := hub.New(hub.Config{Lanes: 1, Wake: func(int) {}, MaxRooms: 3})
		m := &hub.Member{}
		m.Init(idOf("m"), nil, h.Lane(0), nil)
		h.Admit(m, hub.Admission{User: user, Rooms: []string{"a"}})
		for i := range 10 {
			for _, name := range []string{"b", fmt.Sprint("c", i)} {
				if _, err := h.Join(m, name); err != nil {
					t.Fatalf("user %q, round %d: %v", user, i, err)
				}
			}
			if _, err := h.Join(m, "d"); !errors.Is(err, hub.ErrTooManyRooms) {
				t.Fatalf("user %q, round %d: %v", user, i, err)
			}
			if _, err := h.Join(m, m.ID()); err != nil { // does not count
				t.Fatal(err)
			}
			h.Leave(m, "b")
			h.Leave(m, fmt.Sprint("c", i))
			if h.User(m) != user {
				t.Fatalf("user is %q", h.User(m))
			}
		}
	}
}

// TestRoomNamesWhileTheyChange checks that the bound on the names counts only the rooms that a
// member is in, after it joined and left other rooms in any order.
func TestRoomNamesWhileTheyChange(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"", "a user with a long name"} {
		h := hub.New(hub.Config{Lanes: 1, Wake: func(int) {}, RoomNames: 10})
		m := &hub.Member{}
		m.Init(idOf("m"), nil, h.Lane(0), nil)
		h.Admit(m, hub.Admission{User: user, Rooms: []string{"ab"}})
		for i := range 10 {
			for _, name := range []string{"cdef", "ghij"} {
				if _, err := h.Join(m, name); err != nil {
					t.Fatalf("user %q, round %d, %s: %v", user, i, name, err)
				}
			}
			if _, err := h.Join(m, "k"); !errors.Is(err, hub.ErrTooManyRooms) {
				t.Fatalf("user %q, round %d: %v", user, i, err)
			}
			if _, err := h.Join(m, m.ID()); err != nil { // does not count
				t.Fatal(err)
			}
			h.Leave(m, []string{"cdef", "ghij"}[i%2])
			h.Leave(m, []string{"ghij", "cdef"}[i%2])
			h.Leave(m, "not in it")
		}
	}
}
