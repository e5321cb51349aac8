package app_test

import (
	"encoding/json"
	"testing"
)

// TestHistory checks that the option history keeps messages for clients that were away, on a server
// without Redis.
func TestHistory(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"history": "log:*=10/5m"})
	type joined struct {
		Joined []struct {
			Room, Epoch, Unrecovered string
			Offset                   int
			Recovered                int
		}
	}
	join := func(name, request string) (*client, joined) {
		c := s.dialExtension(name)
		c.send(request)
		var answer joined
		c.until("join", &answer)
		return c, answer
	}
	ada, first := join("ada", `{"event":"join","data":{"rooms":["log:1","plain"]}}`)
	if len(first.Joined) != 2 || first.Joined[0].Epoch == "" || first.Joined[0].Offset != 0 || first.Joined[1].Epoch != "" {
		t.Fatalf("joined %+v", first)
	}
	for _, text := range []string{"one", "two"} {
		ada.send(`{"event":"say","data":{"room":"log:1","text":"` + text + `"}}`)
		ada.until("say", nil)
	}
	position, _ := json.Marshal(map[string]any{"offset": 0, "epoch": first.Joined[0].Epoch})
	bob, second := join("bob", `{"event":"join","data":{"rooms":["log:1"],"positions":{"log:1":`+string(position)+`}}}`)
	if len(second.Joined) != 1 || second.Joined[0].Recovered != 2 || second.Joined[0].Offset != 2 || second.Joined[0].Unrecovered != "" {
		t.Errorf("joined %+v, want two recovered messages", second)
	}
	for _, want := range []string{"one", "two"} {
		var said struct{ Text string }
		bob.until("say", &said)
		if said.Text != want {
			t.Errorf("recovered %q, want %q", said.Text, want)
		}
	}
}
