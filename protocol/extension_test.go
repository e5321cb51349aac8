package protocol_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hearthws/hearth/protocol"
)

type extensionVectors struct {
	Requests []struct {
		Name, Text string
		Request    *protocol.ExtensionRequest // nil: the client does not request the extension
	}
	Joins []struct {
		Name, Text string
		Join       protocol.JoinRequest
	}
	Answers []struct {
		Name, Text string
		Answer     *protocol.Answer // nil: there is no number of a question
	}
	Outgoing []extensionOutgoing
}

type extensionOutgoing struct {
	Name      string
	Event     text
	Data, ID  *string
	Connected *struct {
		ID, UserID string
		Time       time.Time
	}
	Granted     protocol.Granted
	Room        string
	Position    protocol.Position
	Joined      []protocol.Joined
	Left        []string
	Rejected    []protocol.Rejected
	Ignored     int
	ClientError *protocol.ClientError
	Interrupted *struct {
		Rooms  []string
		Reason string
	}
	Ask             uint64
	Ticket          string
	Time            time.Time
	Expiring        *time.Time
	Reauthenticated *time.Time
	Wire            string
}

// encode calls the function that encodes the vector.
func (v extensionOutgoing) encode(dst []byte) []byte {
	switch {
	case v.Connected != nil:
		return protocol.AppendGranted(protocol.AppendConnected(dst, v.Connected.ID, v.Connected.UserID, v.Connected.Time), v.Granted)
	case v.Room != "":
		return protocol.AppendPosition(protocol.AppendEvent(dst, string(v.Event), raw(v.Data)), v.Room, v.Position)
	case v.Joined != nil:
		return protocol.AppendJoin(dst, v.Joined, v.Rejected, v.Ignored, raw(v.ID))
	case v.Left != nil:
		return protocol.AppendLeave(dst, v.Left, v.Rejected, v.Ignored, raw(v.ID))
	case v.ClientError != nil:
		return protocol.AppendClientError(dst, *v.ClientError, raw(v.ID))
	case v.Interrupted != nil:
		return protocol.AppendInterrupted(dst, v.Interrupted.Rooms, v.Interrupted.Reason)
	case v.Ask != 0:
		return protocol.AppendAsk(dst, v.Ask, string(v.Event), raw(v.Data))
	case v.Ticket != "":
		return protocol.AppendTicket(dst, v.Ticket, v.Time)
	case v.Expiring != nil:
		return protocol.AppendExpiring(dst, *v.Expiring)
	case v.Reauthenticated != nil:
		return protocol.AppendReauthenticated(dst, *v.Reauthenticated, raw(v.ID))
	}
	return protocol.AppendReply(dst, string(v.Event), raw(v.Data), raw(v.ID))
}

func TestExtension(t *testing.T) {
	t.Parallel()
	vectors := golden[extensionVectors](t, "extension.json")
	for _, v := range vectors.Requests {
		e, err := protocol.ParseEnvelope([]byte(v.Text))
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		got, ok := protocol.ParseExtensionRequest(e.Extension)
		if ok != (v.Request != nil) {
			t.Errorf("%s: requested: %v", v.Name, ok)
		} else if v.Request != nil {
			if diff := cmp.Diff(*v.Request, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: %s", v.Name, diff)
			}
		}
	}
	for _, v := range vectors.Joins {
		e, err := protocol.ParseEnvelope([]byte(v.Text))
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		got := protocol.ParseJoin(e.Data)
		if diff := cmp.Diff(v.Join, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", v.Name, diff)
		}
		if diff := cmp.Diff(protocol.ParseRooms(e.Data), got.Rooms, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: ParseRooms differs: %s", v.Name, diff)
		}
	}
	for _, v := range vectors.Answers {
		e, err := protocol.ParseEnvelope([]byte(v.Text))
		if err != nil || e.Event != protocol.EventAnswer {
			t.Fatalf("%s: %v", v.Name, err)
		}
		got, ok := protocol.ParseAnswer(e.Data)
		if ok != (v.Answer != nil) {
			t.Errorf("%s: valid: %v", v.Name, ok)
		} else if ok {
			if diff := cmp.Diff(*v.Answer, got); diff != "" {
				t.Errorf("%s: %s", v.Name, diff)
			}
		}
	}
	for _, v := range vectors.Outgoing {
		if diff := cmp.Diff("before"+v.Wire, string(v.encode([]byte("before")))); diff != "" {
			t.Errorf("%s: %s", v.Name, diff)
		}
	}
}

// TestExtensionIsBounded parses requests with more elements than are kept.
func TestExtensionIsBounded(t *testing.T) {
	t.Parallel()
	var names, positions, last []string
	for i := range 3000 {
		names = append(names, fmt.Sprintf(`"r%d"`, i))
		positions = append(positions, fmt.Sprintf(`"r%d":{"offset":1,"epoch":"e"}`, i))
		last = append(last, fmt.Sprintf(`"r%d":1`, i))
	}
	join := protocol.ParseJoin(json.RawMessage(`{"rooms":[` + strings.Join(names, ",") + `],"positions":{` + strings.Join(positions, ",") + `},"last":{` + strings.Join(last, ",") + `}}`))
	if len(join.Rooms) != 1024 || join.Ignored != 3000-1024 || len(join.Positions) != 1024 || len(join.Last) != 1024 {
		t.Errorf("%d rooms, %d ignored, %d positions, %d last", len(join.Rooms), join.Ignored, len(join.Positions), len(join.Last))
	}
	r, ok := protocol.ParseExtensionRequest(json.RawMessage(`{"version":1,"features":[` + strings.Join(names, ",") + `],"ticket":"` + strings.Repeat("x", 20<<10) + `"}`))
	if !ok || len(r.Features) != 16 || r.Ticket != "" {
		t.Errorf("%v: %d features, a ticket of %d bytes", ok, len(r.Features), len(r.Ticket))
	}
	long := strings.Repeat("x", 5000)
	if join := protocol.ParseJoin(json.RawMessage(`{"rooms":["` + long + `"]}`)); len(join.Invalid) != 1 || len(join.Invalid[0].Name) != protocol.MaxRoomName {
		t.Errorf("a long name: %d", len(join.Invalid))
	}
}

func FuzzExtension(f *testing.F) {
	vectors := golden[extensionVectors](f, "extension.json")
	for _, v := range vectors.Requests {
		f.Add([]byte(v.Text))
	}
	for _, v := range vectors.Joins {
		f.Add([]byte(v.Text))
	}
	for _, v := range vectors.Answers {
		f.Add([]byte(v.Text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := protocol.ParseEnvelope(b)
		if err != nil {
			return
		}
		if a, ok := protocol.ParseAnswer(e.Data); ok {
			if a.Ask == 0 || a.Ask > protocol.MaxOffset || a.Data != nil && !json.Valid(a.Data) {
				t.Errorf("%+v", a)
			}
			if a.Error != nil && (len(a.Error.Code) > 64 || len(a.Error.Message) > 1024 || !json.Valid(protocol.AppendClientError(nil, *a.Error, e.ID))) {
				t.Errorf("%+v", a.Error)
			}
		}
		valid := func(positions map[string]protocol.Position) {
			for name, p := range positions {
				if protocol.CheckRoom(name) != nil || p.Offset > protocol.MaxOffset || len(p.Epoch) > 32 || p.Epoch == "" && p.Offset != 0 {
					t.Errorf("position %q: %v", name, p)
				}
			}
			if len(positions) > protocol.MaxRoomsPerRequest {
				t.Errorf("%d positions", len(positions))
			}
		}
		if r, ok := protocol.ParseExtensionRequest(e.Extension); ok {
			valid(r.Positions)
			if r.Version < 1 || len(r.Features) > 16 {
				t.Errorf("%+v", r)
			}
		}
		join := protocol.ParseJoin(e.Data)
		valid(join.Positions)
		if diff := cmp.Diff(protocol.ParseRooms(e.Data), join.Rooms, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		var rejected []protocol.Rejected
		for _, n := range join.Invalid {
			if protocol.CheckRoom(n.Name) == nil && len(n.Name) < protocol.MaxRoomName || n.After > len(join.Rooms) {
				t.Errorf("%+v is not valid", n)
			}
			rejected = append(rejected, protocol.Rejected{Room: n.Name, Code: "invalid"})
		}
		reply := protocol.AppendJoin(nil, nil, rejected, join.Ignored, e.ID)
		if !json.Valid(reply) {
			t.Errorf("%q", reply)
		}
	})
}
