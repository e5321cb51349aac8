// Command hello is the shortest useful server: whoever says who they are is let in, may join rooms, and talks to them.
//
//	go run ./examples/hello
//	websocat ws://localhost:8080/ws
//	{"event":"authenticate","data":{"name":"ada"}}
//	{"event":"join","data":{"rooms":["tea"]}}
//	{"event":"say","data":"hello, tea room"}
//
// The first of these lines has five seconds to come, so paste it. Who says nothing for 90 seconds is closed.
package main

import (
	"context"
	"log"
	"net/http"

	"github.com/hearthws/hearth"
)

// Credentials are what a client's `authenticate` carries, Profile what the server keeps with it.
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
	var srv *hearth.Server[Credentials, Profile]
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
		Message: func(ctx context.Context, c *hearth.Client[Profile], m hearth.Message) error {
			return srv.Publish(ctx, hearth.ToRoom("tea"), m.Event, map[string]any{"from": c.UserID(), "data": m.Data})
		},
	})
	return srv, err
}
