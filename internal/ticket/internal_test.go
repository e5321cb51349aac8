package ticket

import (
	"reflect"
	"testing"
)

// FuzzParse parses any fields: a node of another version could seal them.
func FuzzParse(f *testing.F) {
	full := Ticket{User: "u", Metadata: []byte("m"), Rooms: []string{"a", "b"}}
	f.Add(full.append(nil))
	f.Add([]byte{})
	f.Add(make([]byte, 24))
	f.Fuzz(func(t *testing.T, b []byte) {
		var parsed, again Ticket
		if !parsed.parse(b) {
			return
		}
		if !again.parse(parsed.append(nil)) || !reflect.DeepEqual(parsed, again) {
			t.Errorf("%+v became %+v", parsed, again)
		}
	})
}

// TestParseTruncated checks that no part of a ticket counts as a ticket.
func TestParseTruncated(t *testing.T) {
	t.Parallel()
	full := Ticket{User: "user", Metadata: []byte("metadata"), Rooms: []string{"a", "bc"}}
	b := full.append(nil)
	for n := range b {
		if new(Ticket).parse(b[:n]) {
			t.Errorf("parsed the first %d of %d bytes", n, len(b))
		}
	}
	if new(Ticket).parse(append(b, 0)) {
		t.Error("parsed more than a ticket")
	}
	b[0] = 2
	if new(Ticket).parse(b) {
		t.Error("parsed a ticket with unknown flags")
	}
}
