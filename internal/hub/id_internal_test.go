package hub

import (
	"strings"
	"testing"

	"github.com/google/uuid"
)

// TestIDIsAUUID checks that ids have the text of UUIDs, and that ParseID accepts no other text.
func TestIDIsAUUID(t *testing.T) {
	t.Parallel()
	for range 100 {
		u := uuid.New()
		if got := ID(u).String(); got != u.String() {
			t.Errorf("text of %v is %s", u, got)
		}
		if id, ok := ParseID(u.String()); !ok || id != ID(u) {
			t.Errorf("ParseID(%v) = %v, %v", u, id, ok)
		}
	}
	text := "0a1b2c3d-4e5f-4a6b-8c7d-9e8f00ff10ef"
	if id, ok := ParseID(text); !ok || id.String() != text {
		t.Fatalf("ParseID rejects %s", text)
	}
	for i := range text {
		for _, c := range []string{"-", "A", "g", "/", ":", "`", "\x00", "\xff", "ä"} {
			if wrong := text[:i] + c + text[i+1:]; wrong != text {
				if id, ok := ParseID(wrong); ok {
					t.Errorf("ParseID(%q) = %v, want an error", wrong, id)
				}
			}
		}
	}
	for _, wrong := range []string{"", "ws-default", text[1:], text + "0", strings.ToUpper(text), "{" + text + "}", strings.ReplaceAll(text, "-", "")} {
		if id, ok := ParseID(wrong); ok {
			t.Errorf("ParseID(%q) = %v, want an error", wrong, id)
		}
	}
}
