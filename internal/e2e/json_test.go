package e2e_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/protocol"
)

// TestJSON checks that types with a form on the wire have the same form in JSON.
func TestJSON(t *testing.T) {
	t.Parallel()
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for want, v := range map[string]any{
		`"unauthorized"`:   protocol.StateUnauthorized,
		`"authenticating"`: protocol.StateAuthenticating,
		`"authenticated"`:  protocol.StateAuthenticated,
		`"disconnected"`:   hearth.State(protocol.StateDisconnected),

		`{"event":"a"}`:                                hearth.Message{Event: "a"},
		`{"event":"b","data":null}`:                    hearth.Message{Event: "b", Data: raw("null")},
		`{"event":"c","data":{"n":1.50},"id":7}`:       hearth.Message{Event: "c", Data: raw(`{"n":1.50}`), ID: raw("7")},
		`[{"event":"d","id":"x"}]`:                     []hearth.Message{{Event: "d", ID: raw(`"x"`)}},
		`{"event":"e\ud83c","data":"\udf38","id":[1]}`: protocol.Envelope{Event: "e\xed\xa0\xbc", Data: raw(`"\udf38"`), ID: raw(`[1]`)},

		`"room"`: protocol.TypeRoom,
		`{"serverId":"s","type":"room","target":"r","event":"f","data":1,"exclude":["x"]}`: protocol.Message{
			ServerID: "s", Type: protocol.TypeRoom, Target: "r", Event: "f", Data: raw("1"), Exclude: []string{"x"}},
	} {
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
	for _, text := range []string{`{"event":"a"}`, `{"event":"\ud83c","data":null,"id":"1"}`} {
		var m hearth.Message
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(m); err != nil || string(got) != text {
			t.Errorf("%s became %s, %v", text, got, err)
		}
	}
	var state hearth.State
	if err := json.Unmarshal([]byte(`"authenticated"`), &state); err != nil || state != protocol.StateAuthenticated {
		t.Errorf("state %v, %v", state, err)
	}
	if err := json.Unmarshal([]byte(`"nonsense"`), &state); err == nil {
		t.Error("an unknown state was accepted")
	}
}

// TestSurrogates checks that halves of surrogate pairs are returned unchanged. JavaScript strings
// may contain them.
func TestSurrogates(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		asked := make(chan []string, 1)
		r := start(t, config{
			Transport: transport,
			Message:   func(_ context.Context, c *client, m hearth.Message) error { return c.Send(m.Event, m.Data) },
			ValidateRooms: func(_ context.Context, _ *client, rooms []string) ([]string, error) {
				asked <- rooms
				return rooms, nil
			},
		})
		p := r.member("u")
		for _, message := range []string{
			`{"event":"\ud83cx","data":"\udf38 lone"}`,
			`{"event":"\ud800","data":1}`,
			`{"event":"\udfff","data":1}`,
			`{"event":"\udf38\ud83c","data":1}`,
		} {
			p.text(message)
			p.wants(message)
		}
		p.text(`{"event":"\ud83c\udf38","data":1}`)
		p.wants(`{"event":"🌸","data":1}`)

		p.say("join", `{"rooms":["\ud800","\udfff","a\ud800","good"]}`)
		if rooms := <-asked; len(rooms) != 1 || rooms[0] != "good" {
			t.Errorf("asked about rooms %q", rooms)
		}
	})
}
