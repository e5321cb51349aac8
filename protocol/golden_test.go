package protocol_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/protocol"
)

// The golden files, which other implementations read, too. A missing member means that the value is
// absent.
type (
	envelopeVector struct {
		Name    string
		Text    string
		Base64  []byte // instead of Text, for input that is not valid text
		Outcome string // "syntax", "no event", or empty for an envelope
		Event   text
		Data    *string
		ID      *string
	}
	outgoingVector struct {
		Name      string
		Event     text
		Data      *string
		Connected *struct {
			ID, UserID            string
			Time                  time.Time
			ServerPublicKey, Salt string
		}
		Resync      *protocol.Resync
		Error       string
		ClientError *protocol.ClientError
		ID          *string // of a reply, or of the message that caused a ClientError
		Wire        string
	}
	messageVector struct {
		Name      string
		Text      string
		Base64    []byte
		Canonical bool // encoding the message gives Text again
		Channel   string
		Message   *struct {
			ServerID, Type string
			Target, Event  text
			Data           *string
			Exclude        []string
			Offset         uint64
			Epoch          string
		}
	}
	roomVectors struct {
		Names []struct {
			Name    string
			Room    text
			Refused string
		}
		Requests []struct {
			Name, Data string
			Rooms      []string
		}
	}
	closeVector struct {
		Code   int
		Reason string
	}
	errorVector struct {
		Message string
		Close   int
	}
)

// text is a string that may have unpaired surrogates, as in JavaScript.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	s, ok := protocol.ParseString(b)
	if !ok {
		return errors.New("not a string")
	}
	*t = text(s)
	return nil
}

func golden[T any](t testing.TB, file string) (v T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v
}

func input(text string, base64 []byte) []byte {
	if base64 != nil {
		return base64
	}
	return []byte(text)
}

func raw(s *string) json.RawMessage {
	if s == nil {
		return nil
	}
	return json.RawMessage(*s)
}

func TestEnvelopes(t *testing.T) {
	t.Parallel()
	outcomes := map[string]error{"": nil, "syntax": protocol.ErrSyntax, "no event": protocol.ErrNoEvent}
	for _, v := range golden[[]envelopeVector](t, "envelopes.json") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			got, err := protocol.ParseEnvelope(input(v.Text, v.Base64))
			if want, ok := outcomes[v.Outcome]; !ok || err != want {
				t.Fatalf("error %v, want outcome %q", err, v.Outcome)
			}
			want := protocol.Envelope{Event: string(v.Event), Data: raw(v.Data), ID: raw(v.ID)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOutgoing(t *testing.T) {
	t.Parallel()
	for _, v := range golden[[]outgoingVector](t, "outgoing.json") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			got := []byte("before")
			switch c := v.Connected; {
			case c != nil && c.Salt != "":
				got = protocol.AppendConnectedEncrypted(got, c.ID, c.UserID, c.Time, c.ServerPublicKey, c.Salt)
			case c != nil:
				got = protocol.AppendConnected(got, c.ID, c.UserID, c.Time.In(time.FixedZone("", 3600)))
			case v.Resync != nil:
				got = protocol.AppendResync(got, *v.Resync)
			case v.ClientError != nil:
				got = protocol.AppendClientError(got, *v.ClientError, raw(v.ID))
			case v.ID != nil:
				got = protocol.AppendReply(got, string(v.Event), raw(v.Data), raw(v.ID))
			case v.Error != "":
				got = protocol.AppendError(got, &protocol.Error{Message: v.Error})
			default:
				got = protocol.AppendEvent(got, string(v.Event), raw(v.Data))
			}
			if diff := cmp.Diff("before"+v.Wire, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	for _, v := range golden[[]messageVector](t, "messages.json") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			got, err := protocol.ParseMessage(input(v.Text, v.Base64))
			w := v.Message
			if w == nil {
				if !errors.Is(err, protocol.ErrMessage) {
					t.Fatalf("got %+v, error %v; want ErrMessage", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := protocol.Message{ServerID: w.ServerID, Type: got.Type, Target: string(w.Target), Event: string(w.Event), Data: raw(w.Data), Exclude: w.Exclude, Position: protocol.Position{Offset: w.Offset, Epoch: w.Epoch}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if got.Type.String() != w.Type || got.Channel() != v.Channel {
				t.Errorf("type %v on channel %q, want %v on %q", got.Type, got.Channel(), w.Type, v.Channel)
			}
			if text := protocol.AppendMessage(nil, got); v.Canonical && string(text) != v.Text {
				t.Errorf("written as\n%s\nwant\n%s", text, v.Text)
			}
		})
	}
}

func TestRooms(t *testing.T) {
	t.Parallel()
	vectors := golden[roomVectors](t, "rooms.json")
	refusals := map[string]error{"": nil, "empty": protocol.ErrRoomEmpty, "too long": protocol.ErrRoomTooLong, "reserved": protocol.ErrRoomReserved, "not valid": protocol.ErrRoomInvalid}
	for _, v := range vectors.Names {
		if want, ok := refusals[v.Refused]; !ok || protocol.CheckRoom(string(v.Room)) != want {
			t.Errorf("%s: %v, want %q", v.Name, protocol.CheckRoom(string(v.Room)), v.Refused)
		}
	}
	for _, v := range vectors.Requests {
		if got := protocol.ParseRooms([]byte(v.Data)); !cmp.Equal(strings.Join(v.Rooms, "\x00"), strings.Join(got, "\x00")) || len(got) != len(v.Rooms) {
			t.Errorf("%s: %q, want %q", v.Name, got, v.Rooms)
		}
	}
}

func TestCloses(t *testing.T) {
	t.Parallel()
	for _, v := range golden[[]closeVector](t, "closes.json") {
		if got := protocol.CloseReason(v.Code); got != v.Reason {
			t.Errorf("%d: %q, want %q", v.Code, got, v.Reason)
		}
	}
	if got := protocol.CloseReason(protocol.CloseProtocolError); got != "" {
		t.Errorf("1002: %q, want no reason", got)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	var want []errorVector
	for _, e := range []*protocol.Error{
		protocol.ErrInvalidFormat, protocol.ErrAlreadyAuthenticated, protocol.ErrNotAuthenticated,
		protocol.ErrAuthFailed, protocol.ErrAuthError, protocol.ErrHandshakeFailed,
	} {
		want = append(want, errorVector{e.Message, e.Code})
	}
	if diff := cmp.Diff(want, golden[[]errorVector](t, "errors.json")); diff != "" {
		t.Error(diff)
	}
}

// TestDocument compares docs/protocol.md with the golden files. A code block whose info string
// names a vector, as in "json outgoing.json#connected", must equal that vector, byte for byte.
// Every close code and error text must be in the document.
func TestDocument(t *testing.T) {
	t.Parallel()
	examples := map[string]string{}
	for _, v := range golden[[]envelopeVector](t, "envelopes.json") {
		examples["envelopes.json#"+v.Name] = v.Text
	}
	for _, v := range golden[[]outgoingVector](t, "outgoing.json") {
		examples["outgoing.json#"+v.Name] = v.Wire
	}
	for _, v := range golden[[]messageVector](t, "messages.json") {
		examples["messages.json#"+v.Name] = v.Text
	}
	extension := golden[extensionVectors](t, "extension.json")
	for _, v := range extension.Requests {
		examples["extension.json#"+v.Name] = v.Text
	}
	for _, v := range extension.Joins {
		examples["extension.json#"+v.Name] = v.Text
	}
	for _, v := range extension.Answers {
		examples["extension.json#"+v.Name] = v.Text
	}
	for _, v := range extension.Outgoing {
		examples["extension.json#answer "+v.Name] = v.Wire
	}
	b, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	lines := bufio.NewScanner(strings.NewReader(string(b)))
	for n := 1; lines.Scan(); n++ {
		info, ok := strings.CutPrefix(lines.Text(), "```json")
		if !ok {
			continue
		}
		want, ok := examples[strings.TrimSpace(info)]
		if !ok {
			t.Errorf("line %d: there is no golden vector %q", n, strings.TrimSpace(info))
			continue
		}
		var block []string
		for ; lines.Scan() && lines.Text() != "```"; n++ {
			block = append(block, lines.Text())
		}
		n++
		checked++
		if got := strings.Join(block, "\n"); got != want {
			t.Errorf("before line %d: %s\nthe golden file has\n%s", n, got, want)
		}
	}
	if checked < 10 {
		t.Errorf("only %d examples found", checked)
	}
	for _, v := range golden[[]errorVector](t, "errors.json") {
		if !strings.Contains(string(b), "`"+v.Message+"`") {
			t.Errorf("the error %q is not in the document", v.Message)
		}
	}
	for _, v := range golden[[]closeVector](t, "closes.json") {
		if row, _ := json.Marshal(v.Code); !strings.Contains(string(b), "| "+string(row)+" | `"+v.Reason+"` |") {
			t.Errorf("close code %d %q is not in the document", v.Code, v.Reason)
		}
	}
}
