package hub

import "testing"

// TestClients finds members whose ids begin with the same half, and removes them in any order.
func TestClients(t *testing.T) {
	t.Parallel()
	ids := []ID{{1, 15: 1}, {1, 15: 2}, {1, 15: 3}, {2}}
	for first := range ids {
		var c clients
		members := make([]*Member, len(ids))
		for i, id := range ids {
			members[i] = &Member{id: id}
			c.put(members[i])
		}
		gone := map[int]bool{}
		for k := range ids {
			for i, id := range ids {
				want := members[i]
				if gone[i] {
					want = nil
				}
				if got := c.get(id); got != want {
					t.Fatalf("after removing %v: get(%v) = %p, want %p", gone, id, got, want)
				}
			}
			i := (first + k) % len(ids)
			c.remove(members[i])
			gone[i] = true
		}
		if c.byHalf.Len() != 0 || len(c.others) != 0 {
			t.Errorf("%d and %d members are left", c.byHalf.Len(), len(c.others))
		}
	}
	var c clients
	if m := c.get(ID{9}); m != nil {
		t.Error("an empty index has a member")
	}
}
