package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/protocol"
)

var (
	_ hearth.Sender = (*server)(nil)
	_ hearth.Sender = hearth.Local[credentials, profile]{}
)

type move struct {
	From, To string
}

func TestHandlers(t *testing.T) {
	t.Parallel()
	unhandled := make(chan string, 10)
	r := start(t, config{Message: func(_ context.Context, _ *client, m hearth.Message) error {
		unhandled <- m.Event
		return nil
	}})
	hearth.Handle(r.server, "move", func(_ context.Context, c *client, m move) error {
		return c.Send("moved", m.From+m.To)
	})
	hearth.Handle(r.server, "raw", func(_ context.Context, c *client, m hearth.Message) error {
		return c.Send("was", m)
	})
	hearth.HandleRequest(r.server, "add", func(_ context.Context, _ *client, n []int) (int, error) {
		if len(n) == 0 {
			return 0, fmt.Errorf("add: %w", &hearth.ClientError{Code: "empty", Message: "Nothing to add"})
		}
		return n[0] + n[1], nil
	})
	p := r.member("ada")
	for _, tt := range []struct{ sent, want string }{
		{`{"event":"move","data":{"from":"e2","to":"e4"}}`, `{"event":"moved","data":"e2e4"}`},
		{`{"event":"move"}`, `{"event":"moved","data":""}`},
		{`{"event":"move","data":7}`, `{"event":"error","data":{"message":"Invalid data","code":"invalid_data"}}`},
		{`{"event":"move","data":7,"id":"x"}`, `{"event":"error","data":{"message":"Invalid data","code":"invalid_data"},"id":"x"}`},
		{`{"event":"raw","data":1.50,"id":7}`, `{"event":"was","data":{"event":"raw","data":1.50,"id":7}}`},
		{`{"event":"add","data":[1,2],"id":"17"}`, `{"event":"add","data":3,"id":"17"}`},
		{`{"event":"add","data":[3,4],"id":{"a":[1]}}`, `{"event":"add","data":7,"id":{"a":[1]}}`},
		{`{"event":"add","data":[],"id":17}`, `{"event":"error","data":{"message":"Nothing to add","code":"empty"},"id":17}`},
		{`{"event":"add"}`, `{"event":"error","data":{"message":"Nothing to add","code":"empty"}}`},
	} {
		sendText(t, p, tt.sent)
		p.wants(tt.want)
	}
	sendText(t, p, `{"event":"add","data":[1,1]}`) // a request without an id has no reply
	sendText(t, p, `{"event":"other"}`)
	if got := <-unhandled; got != "other" {
		t.Errorf("the message callback got %q", got)
	}
	sendText(t, p, `{"event":"raw"}`)
	p.wants(`{"event":"was","data":{"event":"raw"}}`)
	if n := r.Stats().CallbackErrors; n != 0 {
		t.Errorf("%d callback errors; a ClientError must not count as one", n)
	}
}

// TestUnhandledEvents checks that events without a handler are counted, with and without handlers
// for other events.
func TestUnhandledEvents(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	hearth.Handle(r.server, "known", func(_ context.Context, c *client, _ any) error { return c.Send("ok", nil) })
	p := r.member("ada")
	sendText(t, p, `{"event":"unknown"}`)
	sendText(t, p, `{"event":"known"}`)
	p.wants(`{"event":"ok","data":null}`)
	if n := r.Stats().MessagesUnhandled; n != 1 {
		t.Errorf("%d unhandled messages, want 1", n)
	}
}

// TestBadHandlers checks that Start reports a handler that can never be called.
func TestBadHandlers(t *testing.T) {
	t.Parallel()
	for _, event := range []string{"", "connected", "join", "hearth:x", "twice"} {
		s, err := hearth.New(unhurried(config{Authenticate: accept}))
		must(t, err)
		for range 2 {
			hearth.Handle(s, event, func(context.Context, *client, int) error { return nil })
		}
		err = s.Start(t.Context())
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("handle %q", event)) || event != "twice" && !errors.Is(err, protocol.ErrEvent) {
			t.Errorf("%q: %v", event, err)
		}
	}
}

func TestReply(t *testing.T) {
	t.Parallel()
	r := start(t, config{Message: func(_ context.Context, c *client, m hearth.Message) error {
		if err := c.Reply(m, hearth.NoData{}); err != nil {
			return c.Send("failed", errors.Is(err, hearth.ErrNoID))
		}
		return nil
	}})
	p := r.member("ada")
	sendText(t, p, `{"event":"save","id":"1"}`)
	p.wants(`{"event":"save","id":"1"}`)
	sendText(t, p, `{"event":"save"}`)
	p.wants(`{"event":"failed","data":true}`)
}

// TestRejectionByClientError checks that a ClientError from Authenticate rejects the client with
// the protocol's own text.
func TestRejectionByClientError(t *testing.T) {
	t.Parallel()
	r := start(t, config{Authenticate: func(context.Context, hearth.AuthRequest[credentials]) (id hearth.Identity[profile], err error) {
		return id, &hearth.ClientError{Message: "your secret is 42"}
	}})
	p := r.peer()
	sendText(t, p, `{"event":"authenticate"}`)
	p.wants(`{"event":"error","data":{"message":"Authentication failed"}}`)
	p.wantsClose(4003, "Authentication failed")
	if s := r.Stats(); s.AuthRejected != 1 || s.AuthFailed != 0 {
		t.Errorf("%+v", s)
	}
}

// TestValidatorClientError checks that a ClientError of the room validator reaches the client, and
// is the only answer to the join, with and without the extension.
func TestValidatorClientError(t *testing.T) {
	t.Parallel()
	r := start(t, config{ValidateRooms: func(context.Context, *client, []string) ([]string, error) {
		return []string{"shop"}, &hearth.ClientError{Code: "closed", Message: "The shop is closed"}
	}})
	for _, p := range []*peer{r.member("ada"), r.extended("bob")} {
		sendText(t, p, `{"event":"join","data":{"rooms":["shop"]}}`)
		p.wants(`{"event":"error","data":{"message":"The shop is closed","code":"closed"}}`)
		sendText(t, p, `{"event":"join","data":{"rooms":["shop"]},"id":"7"}`)
		p.wants(`{"event":"error","data":{"message":"The shop is closed","code":"closed"},"id":"7"}`)
		if r.client(p).In("shop") {
			t.Error("the client joined although the validator failed")
		}
		must(t, r.client(p).Send("last", 1))
		p.wants(`{"event":"last","data":1}`)
	}
}

func TestSetMetadata(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	c := r.client(r.member("ada"))
	c.SetMetadata(profile{"Ada Lovelace"})
	if got := c.Metadata().Name; got != "Ada Lovelace" {
		t.Errorf("metadata %q", got)
	}
}

// TestZeroClient checks that a zero Client behaves as a disconnected one.
func TestZeroClient(t *testing.T) {
	t.Parallel()
	c := new(client)
	for name, err := range map[string]error{
		"Send": c.Send("m", 1), "Reply": c.Reply(hearth.Message{Event: "m", ID: []byte("1")}, 1), "Join": c.Join(t.Context(), "r"),
		"Disconnect": c.Disconnect(1000, ""), "EnableEncryption": c.EnableEncryption(t.Context(), nil, "", nil),
	} {
		if !errors.Is(err, hearth.ErrNotConnected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.Leave("r")
	if c.ID() != "" || c.UserID() != "" || c.In("r") || c.Rooms() != nil || c.Encrypted() || c.Backpressured() ||
		c.State() != protocol.StateDisconnected || c.RemoteAddr().IsValid() || c.ConnectedAt() != (time.Time{}) || c.LastActivity() != (time.Time{}) {
		t.Error("a zero Client looks connected")
	}
}

// sendText sends a message as it is written.
func sendText(t *testing.T, p *peer, message string) {
	t.Helper()
	must(t, p.wire.send(opText, []byte(message)))
}

// TestFailedRequestsAreAnswered checks that a request that fails is answered with an error.
func TestFailedRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	r := start(t, config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	hearth.HandleRequest(r.server, "fails", func(context.Context, *client, any) (int, error) {
		return 0, errors.New("database is down")
	})
	hearth.HandleRequest(r.server, "panics", func(context.Context, *client, any) (int, error) { panic("oh") })
	hearth.HandleRequest(r.server, "odd", func(context.Context, *client, any) (any, error) { return make(chan int), nil })
	p := r.member("ada")
	for _, event := range []string{"fails", "panics", "odd"} {
		sendText(t, p, `{"event":"`+event+`","id":"7"}`)
		p.wants(`{"event":"error","data":{"message":"Internal error","code":"internal"},"id":"7"}`)
		sendText(t, p, `{"event":"`+event+`"}`) // without an id there is no reply to fail
	}
	hearth.Handle(r.server, "plain", func(context.Context, *client, any) error { return errors.New("database is down") })
	sendText(t, p, `{"event":"plain","id":9}`)
	p.wants(`{"event":"error","data":{"message":"Internal error","code":"internal"},"id":9}`)
	sendText(t, p, `{"event":"fails","id":8}`)
	p.wants(`{"event":"error","data":{"message":"Internal error","code":"internal"},"id":8}`)
	if n := r.Stats().CallbackErrors; n != 7 {
		t.Errorf("%d callback errors, want 7", n)
	}
	if !strings.Contains(log.String(), "event=fails") {
		t.Errorf("the log does not name the event: %s", log.String())
	}
}
