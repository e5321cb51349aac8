package hub

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// TestRosterIsAMap compares it with one. The ids are few enough to meet again, and of a few parts, where their ways
// cross: ids that ask for the same slot, for the one behind it, and for the last.
func TestRosterIsAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r roster
		want := make(map[ID]*Member)
		ids := rapid.Custom(func(t *rapid.T) ID {
			return ID{
				rapid.SampledFrom([]byte{0, 7}).Draw(t, "part"),
				rapid.SampledFrom([]byte{0, 1, 64, 128, 192, 254, 255}).Draw(t, "home"),
				15: rapid.ByteMax(20).Draw(t, "id"),
			}
		})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				for _, id := range rapid.SliceOfN(ids, 1, 20).Draw(t, "ids") {
					if want[id] == nil {
						want[id] = &Member{id: id}
						r.put(want[id])
					}
				}
			},
			"drop": func(t *rapid.T) {
				for _, id := range rapid.SliceOfN(ids, 1, 30).Draw(t, "ids") {
					if m := want[id]; m != nil {
						r.drop(m)
						delete(want, id)
					}
				}
			},
			"": func(t *rapid.T) {
				for id, m := range want {
					if r.get(id) != m {
						t.Fatalf("%v is not found", id)
					}
				}
				if id := ids.Draw(t, "id"); r.get(id) != want[id] {
					t.Fatalf("get(%v) = %v, want %v", id, r.get(id), want[id])
				}
				checkParts(t, &r, len(want))
			},
		})
	})
}

// checkParts counts the members, and looks at what else a part promises.
func checkParts(t *rapid.T, r *roster, want int) {
	n := 0
	for i := range r.parts {
		p := &r.parts[i]
		used := 0
		for _, m := range p.slots {
			if m != nil {
				used++
			}
		}
		if used != p.n {
			t.Fatalf("part %d counts %d members, and has %d", i, p.n, used)
		}
		if slots := len(p.slots); 4*used > 3*slots || slots > partMin && 4*used < slots {
			t.Fatalf("part %d has %d slots for %d members", i, slots, used)
		}
		n += used
	}
	if n != want {
		t.Fatalf("%d members, want %d", n, want)
	}
}

// TestIDIsAUUID: ids are written as others write UUIDs, and only that is read.
func TestIDIsAUUID(t *testing.T) {
	t.Parallel()
	for range 100 {
		u := uuid.New()
		if got := ID(u).String(); got != u.String() {
			t.Errorf("the text of %v is %s", u, got)
		}
		if id, ok := parseID(u.String()); !ok || id != ID(u) {
			t.Errorf("%v is read as %v, %v", u, id, ok)
		}
	}
	text := "0a1b2c3d-4e5f-4a6b-8c7d-9e8f00ff10ef"
	if id, ok := parseID(text); !ok || id.String() != text {
		t.Fatalf("%s is not read", text)
	}
	for i := range text {
		for _, c := range []string{"-", "A", "g", "/", ":", "`", "\x00", "\xff", "ä"} {
			if wrong := text[:i] + c + text[i+1:]; wrong != text {
				if id, ok := parseID(wrong); ok {
					t.Errorf("%q is read as %v", wrong, id)
				}
			}
		}
	}
	for _, wrong := range []string{"", "ws-default", text[1:], text + "0", strings.ToUpper(text), "{" + text + "}", strings.ReplaceAll(text, "-", "")} {
		if id, ok := parseID(wrong); ok {
			t.Errorf("%q is read as %v", wrong, id)
		}
	}
}
