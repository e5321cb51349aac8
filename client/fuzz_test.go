package client

import (
	"context"
	"testing"
)

// FuzzReceive checks that no message of a server makes the client panic, or send without end.
func FuzzReceive(f *testing.F) {
	for _, text := range []string{
		`{"event":"said","data":1,"room":"tea","offset":9007199254740991,"epoch":"e"}`,
		`{"event":"join","data":{"joined":[{"room":"tea","offset":7,"epoch":"e","recovered":2}],"rejected":[]},"id":"1"}`,
		`{"event":"join","data":{"joined":[{"room":"tea","offset":9,"epoch":"f"}],"rejected":[{"room":"milk","code":"internal"}]},"id":"1"}`,
		`{"event":"join","data":{"joined":[{"room":"tea","unrecovered":"reset"}],"rejected":[{"room":"milk","code":"forbidden"}]},"id":"1"}`,
		`{"event":"error","data":{"message":"No","code":"paid"},"id":"1"}`, `{"event":"error","data":7,"id":"1"}`,
		`{"event":"hearth:interrupted","data":{"rooms":["tea","other"]}}`, `{"event":"hearth:ticket","data":{"ticket":"x"}}`,
		`{"event":"hearth:ask","data":{"ask":1,"event":"q"}}`, `{"event":"hearth:ask","data":{"ask":1,"event":"other"}}`,
		`{"event":"hearth:expiring"}`, `{"event":"encrypted","data":{"iv":"","ct":""}}`, `{"event":"heartbeat"}`, `[]`, `null`, `{"id":1}`,
	} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		c, err := New(Config{URL: "ws://server", Credentials: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			c.Close()
			<-c.Done()
		}()
		n := &conn{c: c, state: State{Phase: Connected, Extension: true}}
		n.ctx, n.cancel = context.WithCancelCause(t.Context())
		defer n.cancel(nil)
		Answer(c, "q", func(context.Context, any) (any, error) { return 1, nil })
		for _, name := range []string{"milk", "tea"} {
			if _, err := c.Join(name, RoomConfig{After: position{Offset: 5, Epoch: "e"}}); err != nil {
				t.Fatal(err)
			}
		}
		c.connected(n, nil)
		for _, text := range []string{first, second} {
			if m, err := n.parse([]byte(text)); err == nil && m != nil {
				c.receive(n, m, len(text))
			}
		}
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		if len(c.out.items) > 10 {
			t.Errorf("%d messages were sent", len(c.out.items))
		}
	})
}
