package protocol_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/hearthws/hearth/protocol"
)

// idVector is an entry of ids.json.
type idVector struct {
	Name, ID string
	Client   bool // whether it is the id of a client of a Hearth node
}

func TestGoldenIDs(t *testing.T) {
	t.Parallel()
	for _, v := range golden[[]idVector](t, "ids.json") {
		if got := protocol.IsClientID(v.ID); got != v.Client {
			t.Errorf("%s: IsClientID(%q) = %v, want %v", v.Name, v.ID, got, v.Client)
		}
		if !v.Client {
			continue
		}
		var id [16]byte
		if _, err := hex.Decode(id[:], []byte(strings.ReplaceAll(v.ID, "-", ""))); err != nil {
			t.Fatal(err)
		}
		protocol.StampClientID(&id)
		if got := uuid.UUID(id).String(); got != v.ID {
			t.Errorf("%s: stamped again: %s, want %s", v.Name, got, v.ID)
		}
	}
}

// TestStampedIDs checks that every stamped id is recognised, for random bytes, and no text that
// differs from it in one character.
func TestStampedIDs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "random"))
		protocol.StampClientID(&id)
		text := uuid.UUID(id).String()
		if !protocol.IsID(text) || !protocol.IsClientID(text) {
			t.Fatalf("%s is not recognised", text)
		}
		changed := []byte(text)
		at := rapid.IntRange(0, len(changed)-1).Draw(t, "at")
		changed[at] = rapid.ByteRange(' ', '~').Filter(func(c byte) bool { return c != text[at] }).Draw(t, "character")
		if protocol.IsClientID(string(changed)) {
			t.Fatalf("%s is recognised, although it differs from %s", changed, text)
		}
	})
}
