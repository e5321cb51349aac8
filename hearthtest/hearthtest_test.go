package hearthtest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/hearthtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// chat starts a server with the handlers of the example.
func chat(t testing.TB) *hearthtest.Server[Login, struct{}] {
	t.Helper()
	srv := hearthtest.New(t, config)
	register(srv.Server)
	hearth.HandleRequest(srv.Server, "upper", func(_ context.Context, _ *hearth.Client[struct{}], text string) (string, error) {
		if text == "" {
			return "", &hearth.ClientError{Code: "empty", Message: "There is no text"}
		}
		return strings.ToUpper(text), nil
	})
	return srv
}

// TestExample does what the example shows.
func TestExample(t *testing.T) {
	t.Parallel()
	srv := chat(t)
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

func TestRequests(t *testing.T) {
	t.Parallel()
	srv := chat(t)
	ada := srv.Connect(Login{"ada"})
	if ada.UserID() != "ada" || ada.ID() == "" {
		t.Errorf("user %q, id %q", ada.UserID(), ada.ID())
	}
	if err := srv.Send(t.Context(), hearth.ToUser("ada"), "first", 1); err != nil {
		t.Fatal(err)
	}
	var reply string
	if err := ada.Request("upper", "abc", &reply); err != nil || reply != "ABC" {
		t.Errorf("got %q, %v", reply, err)
	}
	err := ada.Request("upper", "", &reply)
	if e, ok := errors.AsType[*hearth.ClientError](err); !ok || e.Code != "empty" || e.Message != "There is no text" {
		t.Errorf("got %v", err)
	}
	ada.Expect("first", nil) // it arrived before the answers
	ada.Send("say", "?")
	var e hearth.ClientError
	ada.Expect("error", &e)
	if e.Code != "forbidden" {
		t.Errorf("got %v", e)
	}
	ada.Join("tea")
	ada.Leave("tea")
	ada.Sync()
	if n := srv.Local().Count(hearth.ToRoom("tea")); n != 0 {
		t.Errorf("%d members", n)
	}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	srv := chat(t)
	hearth.Handle(srv.Server, "delete", func(ctx context.Context, c *hearth.Client[struct{}], files int) error {
		yes, err := hearth.Ask[bool](ctx, c, "confirm", files)
		if e, ok := errors.AsType[*hearth.AnswerError](err); ok {
			return c.Send("kept", e.Code)
		}
		return errors.Join(err, c.Send("deleted", yes))
	})
	ada := srv.Connect(Login{"ada"})
	ask := func() (reply func(any)) {
		ada.Send("delete", 3)
		var files int
		reply = ada.ExpectAsk("confirm", &files)
		if files != 3 {
			t.Errorf("asked for %d files", files)
		}
		return reply
	}
	ask()(true)
	var yes bool
	if ada.Expect("deleted", &yes); !yes {
		t.Error("the answer was yes")
	}
	ask()(&hearth.AnswerError{Code: "not_now"})
	var code string
	if ada.Expect("kept", &code); code != "not_now" {
		t.Errorf("code %q", code)
	}
}

func TestRejected(t *testing.T) {
	t.Parallel()
	c := chat(t).Dial()
	c.SendText(`{"event":`)
	c.Expect("error", nil)
	c.Send("authenticate", Login{})
	var e hearth.ClientError
	c.Expect("error", &e)
	if e.Message != "Authentication failed" {
		t.Errorf("got %v", e)
	}
	if reason := c.ExpectClose(4003); reason != "Authentication failed" {
		t.Errorf("reason %q", reason)
	}
	c.ExpectClose(4003) // still
}

func TestIgnore(t *testing.T) {
	t.Parallel()
	srv := chat(t)
	ada := srv.Connect(Login{"ada"})
	ada.Ignore("noise")
	for _, event := range []string{"noise", "signal", "noise"} {
		if err := srv.Send(t.Context(), hearth.ToAll(), event, hearth.NoData{}); err != nil {
			t.Fatal(err)
		}
	}
	ada.Expect("signal", nil)
	ada.ExpectNothing()
}

// TestListen checks the server on a port, and one that the test did not make.
func TestListen(t *testing.T) {
	t.Parallel()
	app, err := hearth.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv := hearthtest.Use(t, app)
	conn, _, err := websocket.Dial(t.Context(), srv.Listen(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	ada := srv.Connect(Login{"ada"})
	ada.Close()
	for srv.Local().Count(hearth.ToAll()) != 0 {
		runtime.Gosched()
	}
	srv.Connect(Login{"bob"}).Cut()
}

// TestTime checks that clients stay connected in a bubble, and that timeouts take no time.
func TestTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := chat(t)
		srv.Patience = time.Hour
		ada, bob := srv.Connect(Login{"ada"}), srv.Connect(Login{"bob"})
		guest := srv.Dial()
		bob.Silence()
		began := time.Now()
		bob.ExpectClose(4002)
		if after := time.Since(began); after < 90*time.Second || after > 2*time.Minute {
			t.Errorf("closed after %v", after)
		}
		guest.ExpectClose(4001)
		time.Sleep(24 * time.Hour)
		ada.ExpectNothing()
	})
}

// TestFailures checks what a failed test says.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		f    func(srv *hearthtest.Server[Login, struct{}], c *hearthtest.Client)
		want string
	}{
		"another event": {func(_ *hearthtest.Server[Login, struct{}], c *hearthtest.Client) {
			c.Send("say", 1)
			c.Expect("said", nil)
		}, `got {"event":"error","data":{"message":"Invalid data","code":"invalid_data"}}, want the event said`},
		"nothing": {func(_ *hearthtest.Server[Login, struct{}], c *hearthtest.Client) { c.Expect("said", nil) },
			"nothing arrived within 10s, want said"},
		"something": {func(_ *hearthtest.Server[Login, struct{}], c *hearthtest.Client) {
			c.Send("say", "x")
			c.ExpectNothing()
		}, "want nothing\nnot taken:\n  " + `{"event":"error","data":{"message":"Join the room first","code":"forbidden"}}`},
		"other data": {func(_ *hearthtest.Server[Login, struct{}], c *hearthtest.Client) {
			c.Send("say", "x")
			var n int
			c.Expect("error", &n)
		}, "decode the data of"},
		"no question": {func(_ *hearthtest.Server[Login, struct{}], c *hearthtest.Client) {
			c.Send("say", "x")
			c.ExpectAsk("confirm", nil)
		}, "want the question confirm"},
		"no close": {func(_ *hearthtest.Server[Login, struct{}], c *hearthtest.Client) {
			c.Send("say", "x")
			c.ExpectClose(4000)
		}, "want close 4000"},
		"a close": {func(srv *hearthtest.Server[Login, struct{}], c *hearthtest.Client) {
			if _, err := srv.Disconnect(context.Background(), hearth.ToUser("ada"), 4444, "bye"); err != nil {
				panic(err)
			}
			c.Expect("said", nil)
		}, `got close 4444 "bye", want the event said`},
		"a room": {func(_ *hearthtest.Server[Login, struct{}], c *hearthtest.Client) { c.Join("ws:x") }, "rejected [{Room:ws:x Code:invalid}]"},
		"rejected": {func(srv *hearthtest.Server[Login, struct{}], _ *hearthtest.Client) { srv.Connect(Login{}) },
			`got {"event":"error","data":{"message":"Authentication failed"}}, want connected`},
		"not authenticated": {func(srv *hearthtest.Server[Login, struct{}], _ *hearthtest.Client) { srv.Dial().Sync() }, "need a client of Connect"},
		"invalid config": {func(*hearthtest.Server[Login, struct{}], *hearthtest.Client) {},
			"hearth: Config.Authenticate is required"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &failing{TB: t}
				f.run(func() {
					if name == "invalid config" {
						hearthtest.New(f, hearth.Config[Login, struct{}]{})
						return
					}
					srv := chat(f)
					test.f(srv, srv.Connect(Login{"ada"}))
				})
				if !strings.Contains(f.said, test.want) {
					t.Errorf("got %q, want %q", f.said, test.want)
				}
			})
		})
	}
}

// failing is a test that fails without failing the real one.
type failing struct {
	testing.TB
	said string // the text of the failure
}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (f *failing) Fatal(args ...any) { f.Fatalf("%s", fmt.Sprint(args...)) }

// run runs test on a goroutine that Fatalf may end, and waits for it.
func (f *failing) run(test func()) {
	var wg sync.WaitGroup
	wg.Go(test)
	wg.Wait()
}
