package main

import (
	"bufio"
	"context"
	"io"
	"testing"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/client"
	"github.com/hearthws/hearth/hearthtest"
)

func TestChat(t *testing.T) {
	t.Parallel()
	srv := hearthtest.New(t, hearth.Config[login, struct{}]{
		Authenticate: func(_ context.Context, r hearth.AuthRequest[login]) (hearth.Identity[struct{}], error) {
			return hearth.Identity[struct{}]{UserID: r.Credentials.Name}, nil
		},
		ValidateRooms: func(_ context.Context, _ *hearth.Client[struct{}], rooms []string) ([]string, error) {
			return rooms, nil
		},
	})
	hearth.Handle(srv.Server, "say", func(ctx context.Context, c *hearth.Client[struct{}], l line) error {
		l.From.User = c.UserID()
		return srv.Send(ctx, hearth.ToRoom(l.Room), "say", l)
	})
	bob := srv.Connect(login{"bob"})
	bob.Join("tea")
	in, typed := io.Pipe()
	read, out := io.Pipe()
	ended, lines := make(chan error, 1), make(chan string, 10)
	go func() { // ends with the input
		ended <- chat(t.Context(), "ada", client.Config{URL: "ws://hearth/ws", HTTPClient: srv.HTTPClient()}, in, out)
		out.Close()
	}()
	go func() { // ends with out
		for said := bufio.NewScanner(read); said.Scan(); {
			lines <- said.Text()
		}
	}()
	if _, err := io.WriteString(typed, "hello\n"); err != nil {
		t.Fatal(err)
	}
	bob.Expect("say", nil)
	for _, want := range []string{"* connecting", "* connected", "ada: hello"} {
		if got := <-lines; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	typed.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
