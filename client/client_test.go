package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/client"
	"github.com/hearthws/hearth/internal/test/behaviour"
	"github.com/hearthws/hearth/protocol"
)

func TestConversation(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprint(encrypted), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, behaviour.Config{History: 10, Encryption: "optional"})
				j := newJournal()
				c := newClient(t, w, client.Config{Credentials: login{User: "ada"}, Encryption: encrypted, OnState: j.state})
				client.On(c, "said", func(text string) { j.add("said %s", text) })
				client.On(c, "said", func(m client.Message) { j.add("room %q, offset %d", m.Room, m.Position.Offset) })
				off := client.On(c, "", func(m client.Message) { j.add("all: %s", m.Event) })
				room, err := c.Join("h:tea", j.room("tea", client.RoomConfig{}))
				must(t, err)
				must(t, c.Send(t.Context(), "say", map[string]string{"room": "h:tea", "text": "hi"})) // waits
				must(t, c.Connect(t.Context()))
				must(t, room.Wait(t.Context()))
				connected := "connected as ada"
				if encrypted {
					connected += ", encrypted"
				}
				j.wants(t, "connecting", connected, "tea joined", "said hi", `room "h:tea", offset 1`, "all: said")
				off()
				if s := c.State(); !s.Extension || !s.Recovery || s.ID == "" || s.Encrypted != encrypted {
					t.Errorf("state %+v", s)
				}
				if s := room.Status(); s.State != client.RoomJoined || s.Position.Offset != 1 || room.Name() != "h:tea" {
					t.Errorf("status %+v", s)
				}

				v, err := client.Request[map[string]int](t.Context(), c, "echo", map[string]int{"a": 1})
				if err != nil || v["a"] != 1 {
					t.Errorf("got %v, %v", v, err)
				}
				if _, err := client.Request[json.RawMessage](t.Context(), c, "done", protocol.NoData{}); err != nil {
					t.Error(err)
				}
				_, err = client.Request[int](t.Context(), c, "fail", nil)
				if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != "no" || e.Message != "It fails" {
					t.Errorf("got %v", err)
				}
				_, err = client.Request[int](t.Context(), c, "unknown", nil)
				if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != "unknown_event" {
					t.Errorf("got %v", err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := client.Request[int](ctx, c, "never", nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if _, err := client.Request[int](t.Context(), c, "echo", "text"); err == nil {
					t.Error("a text is not an int")
				}
				for event, data := range map[string]any{"": 1, "join": 1, "x": func() {}} {
					if err := c.Send(t.Context(), event, data); err == nil {
						t.Errorf("%q was sent", event)
					}
				}
				if _, err := c.Join("h:tea", client.RoomConfig{}); !errors.Is(err, client.ErrJoined) {
					t.Errorf("got %v", err)
				}
				if _, err := c.Join("ws:x", client.RoomConfig{}); err == nil {
					t.Error("joined")
				}

				room.Leave()
				j.wants(t, "tea left")
				if _, err := client.Request[int](t.Context(), c, "say", map[string]string{"room": "h:tea"}); err == nil || !strings.Contains(err.Error(), "forbidden") {
					t.Errorf("got %v", err)
				}
				if err := room.Wait(t.Context()); err == nil {
					t.Error("left")
				}
				for name, code := range map[string]string{"secret": "forbidden", "own-error": "paid"} {
					rejected, err := c.Join(name, client.RoomConfig{})
					must(t, err)
					err = rejected.Wait(t.Context())
					if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != code {
						t.Errorf("%s: got %v", name, err)
					}
				}
				j.empty(t)
				c.Close()
				if err := c.Send(t.Context(), "x", 1); !errors.Is(err, client.ErrClosed) {
					t.Errorf("got %v", err)
				}
				if _, err := client.Request[int](t.Context(), c, "x", 1); !errors.Is(err, client.ErrClosed) {
					t.Errorf("got %v", err)
				}
				if err := c.Connect(t.Context()); !errors.Is(err, client.ErrClosed) {
					t.Errorf("got %v", err)
				}
				if _, err := c.Join("x", client.RoomConfig{}); !errors.Is(err, client.ErrClosed) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}
