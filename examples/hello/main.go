// Command hello is the shortest useful server: a client that gives a name may join rooms and talk
// to the room "tea".
//
//	go run ./examples/hello
//	websocat ws://localhost:8080/ws
//	{"event":"authenticate","data":{"name":"ada"}}
//	{"event":"join","data":{"rooms":["tea"]}}
//	{"event":"say","data":"hello, tea room"}
//
// The first of these lines must arrive within five seconds, so paste it. A client that sends
// nothing for 90 seconds is closed.
package main

import (
	"context"
	"log"
	"net/http"

	"github.com/hearthws/hearth"
)

// Credentials is the data of a client's `authenticate`. Profile is what the server keeps with each
// client.
type (
	Credentials struct{ Name string }
	Profile     struct{ Name string }
)

func main() {
	srv, err := newServer()
	if err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	http.Handle("/ws", srv)
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}

func newServer() (*hearth.Server[Credentials, Profile], error) {
	srv, err := hearth.New(hearth.Config[Credentials, Profile]{
		Authenticate: func(ctx context.Context, r hearth.AuthRequest[Credentials]) (hearth.Identity[Profile], error) {
			name := r.Credentials.Name // a real one checks a token or a password here
			if name == "" {
				return hearth.Identity[Profile]{}, hearth.ErrRejected
			}
			return hearth.Identity[Profile]{UserID: name, Metadata: Profile{Name: name}}, nil
		},
		ValidateRooms: func(ctx context.Context, c *hearth.Client[Profile], rooms []string) ([]string, error) {
			return rooms, nil // any room
		},
	})
	if err != nil {
		return nil, err
	}
	hearth.Handle(srv, "say", func(ctx context.Context, c *hearth.Client[Profile], text string) error {
		return srv.Send(ctx, hearth.ToRoom("tea"), "say", map[string]any{"from": c.UserID(), "text": text})
	})
	return srv, nil
}
