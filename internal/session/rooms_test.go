package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
)

// TestRoomReplies checks the replies to joins and leaves of a client with the extension, and that
// other clients get none.
func TestRoomReplies(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		validator func(rooms []string) ([]string, error) // default: allows names without "no"
		none      bool                                   // there is no validator
		maxRooms  int
		send      []string // OWN is the client's own id, OTHER that of another client
		want      []string
	}{
		"join": {
			send: []string{`{"event":"join","data":{"rooms":["b",7,"","a","no1","b","ws:x","c","b"]},"id":"7"}`},
			want: []string{`{"event":"join","data":{"joined":[{"room":"b"},{"room":"a"},{"room":"c"}],"rejected":[{"room":"","code":"invalid"},{"room":"no1","code":"forbidden"},{"room":"ws:x","code":"invalid"}],"ignored":1},"id":"7"}`},
		},
		"without id": {
			send: []string{`{"event":"join","data":{"rooms":["a"]}}`},
			want: []string{`{"event":"join","data":{"joined":[{"room":"a"}],"rejected":[]}}`},
		},
		"again": {
			send: []string{`{"event":"join","data":{"rooms":["a"]}}`, `{"event":"join","data":{"rooms":["a"]},"id":1}`},
			want: []string{`{"event":"join","data":{"joined":[{"room":"a"}],"rejected":[]}}`, `{"event":"join","data":{"joined":[{"room":"a"}],"rejected":[]},"id":1}`},
		},
		"no rooms": {
			send: []string{`{"event":"join","id":1}`, `{"event":"join","data":{"rooms":"x"},"id":2}`, `{"event":"leave","data":[1],"id":3}`},
			want: []string{
				`{"event":"join","data":{"joined":[],"rejected":[]},"id":1}`, `{"event":"join","data":{"joined":[],"rejected":[]},"id":2}`,
				`{"event":"leave","data":{"left":[],"rejected":[]},"id":3}`,
			},
		},
		"no validator": {
			none: true,
			send: []string{`{"event":"join","data":{"rooms":["a",""]},"id":1}`},
			want: []string{`{"event":"join","data":{"joined":[],"rejected":[{"room":"a","code":"forbidden"},{"room":"","code":"invalid"}]},"id":1}`},
		},
		"validator fails": {
			validator: func(rooms []string) ([]string, error) { return rooms, errors.New("no database") },
			send:      []string{`{"event":"join","data":{"rooms":["a","ws:b"]},"id":1}`},
			want:      []string{`{"event":"join","data":{"joined":[],"rejected":[{"room":"a","code":"internal"},{"room":"ws:b","code":"invalid"}]},"id":1}`},
		},
		"validator panics": {
			validator: func([]string) ([]string, error) { panic("in validator") },
			send:      []string{`{"event":"join","data":{"rooms":["a"]},"id":1}`},
			want:      []string{`{"event":"join","data":{"joined":[],"rejected":[{"room":"a","code":"internal"}]},"id":1}`},
		},
		"validator exits": {
			validator: func([]string) ([]string, error) { runtime.Goexit(); return nil, nil },
			send:      []string{`{"event":"join","data":{"rooms":["a"]},"id":1}`, `{"event":"leave","id":2}`},
			want: []string{
				`{"event":"join","data":{"joined":[],"rejected":[{"room":"a","code":"internal"}]},"id":1}`,
				`{"event":"leave","data":{"left":[],"rejected":[]},"id":2}`,
			},
		},
		"validator answers": {
			validator: func(rooms []string) ([]string, error) { return rooms, session.ErrAnswered },
			send:      []string{`{"event":"join","data":{"rooms":["a"]},"id":1}`, `{"event":"leave","data":{"rooms":["a"]},"id":2}`},
			want:      []string{`{"event":"leave","data":{"left":[],"rejected":[{"room":"a","code":"not_member"}]},"id":2}`},
		},
		"validator allows others": {
			validator: func([]string) ([]string, error) { return []string{"other", "b", "b"}, nil },
			send:      []string{`{"event":"join","data":{"rooms":["a","b"]}}`},
			want:      []string{`{"event":"join","data":{"joined":[{"room":"b"}],"rejected":[{"room":"a","code":"forbidden"}]}}`},
		},
		"limit": {
			maxRooms: 2,
			send:     []string{`{"event":"join","data":{"rooms":["a"]}}`, `{"event":"join","data":{"rooms":["b","no","c","a","d"]}}`},
			want: []string{
				`{"event":"join","data":{"joined":[{"room":"a"}],"rejected":[]}}`,
				`{"event":"join","data":{"joined":[{"room":"b"},{"room":"a"}],"rejected":[{"room":"no","code":"forbidden"},{"room":"c","code":"limit"},{"room":"d","code":"limit"}]}}`,
			},
		},
		"ids": {
			send: []string{`{"event":"join","data":{"rooms":["OTHER","OWN"]}}`, `{"event":"leave","data":{"rooms":["OWN","OTHER"]}}`},
			want: []string{
				`{"event":"join","data":{"joined":[{"room":"OWN"}],"rejected":[{"room":"OTHER","code":"forbidden"}]}}`,
				`{"event":"leave","data":{"left":["OWN"],"rejected":[{"room":"OTHER","code":"not_member"}]}}`,
			},
		},
		"leave": {
			send: []string{`{"event":"join","data":{"rooms":["a"]}}`, `{"event":"leave","data":{"rooms":["x","a",null,"a","ws:y"]},"id":{"n":1}}`},
			want: []string{
				`{"event":"join","data":{"joined":[{"room":"a"}],"rejected":[]}}`,
				`{"event":"leave","data":{"left":["a"],"rejected":[{"room":"x","code":"not_member"},{"room":"ws:y","code":"invalid"}],"ignored":1},"id":{"n":1}}`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, with := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					calls := session.Callbacks{}
					if !tt.none {
						calls.ValidateRooms = func(_ context.Context, _ *session.Session, rooms []string, _ json.RawMessage) ([]string, error) {
							if tt.validator != nil {
								return tt.validator(rooms)
							}
							return slices.DeleteFunc(rooms, func(s string) bool { return strings.HasPrefix(s, "no") }), nil
						}
					}
					b := newFixture(session.LobbyConfig{}, calls)
					defer b.close()
					b.env.Hub = hub.New(hub.Config{Lanes: 1, Wake: func(int) {}, MaxRooms: tt.maxRooms})
					own, other := idOf(1), idOf(2)
					p := b.open("10.0.0.1")
					if with {
						p.say(`{"event":"authenticate","hearth":{"version":1}}`)
					} else {
						p.say(`{"event":"authenticate"}`)
					}
					synctest.Wait()
					p.messages()
					names := strings.NewReplacer("OWN", own.String(), "OTHER", other.String())
					for _, message := range tt.send {
						p.say(names.Replace(message))
					}
					synctest.Wait()
					var want []string
					if with {
						for _, message := range tt.want {
							want = append(want, names.Replace(message))
						}
					}
					if got := p.messages(); !slices.Equal(got, want) {
						t.Errorf("extension %v:\n got %s\nwant %s", with, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
					}
				})
			}
		})
	}
}
