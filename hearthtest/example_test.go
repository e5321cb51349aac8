package hearthtest_test

import (
	"context"
	"testing"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/hearthtest"
)

type Login struct{ User string }

var config = hearth.Config[Login, struct{}]{
	Authenticate: func(_ context.Context, r hearth.AuthRequest[Login]) (hearth.Identity[struct{}], error) {
		if r.Credentials.User == "" {
			return hearth.Identity[struct{}]{}, hearth.ErrRejected
		}
		return hearth.Identity[struct{}]{UserID: r.Credentials.User}, nil
	},
	ValidateRooms: func(_ context.Context, _ *hearth.Client[struct{}], rooms []string) ([]string, error) {
		return rooms, nil
	},
}

// register registers the handlers of an application.
func register(srv *hearth.Server[Login, struct{}]) {
	hearth.Handle(srv, "say", func(ctx context.Context, c *hearth.Client[struct{}], text string) error {
		if !c.In("tea") {
			return &hearth.ClientError{Code: "forbidden", Message: "Join the room first"}
		}
		return srv.Send(ctx, hearth.ToRoom("tea").Except(c.ID()), "said", text)
	})
}

// The test of a handler. In a real test, t is the argument of the test function.
func Example() {
	var t *testing.T
	srv := hearthtest.New(t, config)
	register(srv.Server)
	ada, bob := srv.Connect(Login{"ada"}), srv.Connect(Login{"bob"})
	ada.Join("tea")
	bob.Join("tea")
	ada.Send("say", "hello")
	var text string
	bob.Expect("said", &text)
	if text != "hello" {
		t.Errorf("bob has received %q", text)
	}
	ada.ExpectNothing()
}
