package hearth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// Login is what the clients of the examples authenticate with.
type Login struct {
	Token string
}

// User is the metadata of the examples.
type User struct {
	Name string
}

func authenticate(_ context.Context, r hearth.AuthRequest[Login]) (hearth.Identity[User], error) {
	name, ok := strings.CutPrefix(r.Credentials.Token, "token-of-")
	if !ok {
		return hearth.Identity[User]{}, fmt.Errorf("token %q: %w", r.Credentials.Token, hearth.ErrRejected)
	}
	return hearth.Identity[User]{UserID: name, Metadata: User{Name: name}}, nil
}

// A server is an http.Handler. A sent event reaches every client, on this server and on others with
// the same broker.
func Example() {
	ctx := context.Background()
	srv, err := hearth.New(hearth.Config[Login, User]{Authenticate: authenticate})
	if err != nil {
		panic(err)
	}
	if err := srv.Start(ctx); err != nil {
		panic(err)
	}
	defer srv.Shutdown(ctx)
	web := httptest.NewServer(srv) // http.ListenAndServe(":3000", srv)
	defer web.Close()

	alice := connect(web.URL, "token-of-alice")
	defer alice.CloseNow()
	if err := srv.Send(ctx, hearth.ToAll(), "news", map[string]int{"answer": 42}); err != nil {
		panic(err)
	}
	fmt.Println(receive(alice))
	// Output:
	// {"event":"news","data":{"answer":42}}
}

// Clients may join the rooms that ValidateRooms allows. Handle registers a handler for one event,
// whose data it decodes.
func ExampleHandle() {
	ctx := context.Background()
	srv, err := hearth.New(hearth.Config[Login, User]{
		Authenticate: authenticate,
		ValidateRooms: func(_ context.Context, _ *hearth.Client[User], rooms []string) ([]string, error) {
			return rooms, nil
		},
	})
	if err != nil {
		panic(err)
	}
	type line struct{ Room, Text string }
	hearth.Handle(srv, "say", func(ctx context.Context, c *hearth.Client[User], l line) error {
		if !c.In(l.Room) {
			return &hearth.ClientError{Code: "forbidden", Message: "Join the room first"}
		}
		return srv.Send(ctx, hearth.ToRoom(l.Room), "said", []any{c.Metadata().Name, l.Text})
	})
	if err := srv.Start(ctx); err != nil {
		panic(err)
	}
	defer srv.Shutdown(ctx)
	web := httptest.NewServer(srv)
	defer web.Close()

	bob := connect(web.URL, "token-of-bob")
	defer bob.CloseNow()
	send(bob, `{"event":"say","data":{"room":"lobby","text":"hello"}}`)
	fmt.Println(receive(bob))
	send(bob, `{"event":"join","data":{"rooms":["lobby"]}}`)
	send(bob, `{"event":"say","data":{"room":"lobby","text":"hello"}}`)
	fmt.Println(receive(bob))
	// Output:
	// {"event":"error","data":{"message":"Join the room first","code":"forbidden"}}
	// {"event":"said","data":["bob","hello"]}
}

// The value that the handler of a request returns is sent as the reply, with the event and the id
// of the request.
func ExampleHandleRequest() {
	ctx := context.Background()
	srv, err := hearth.New(hearth.Config[Login, User]{Authenticate: authenticate})
	if err != nil {
		panic(err)
	}
	hearth.HandleRequest(srv, "add", func(_ context.Context, _ *hearth.Client[User], n []int) (int, error) {
		sum := 0
		for _, n := range n {
			sum += n
		}
		return sum, nil
	})
	if err := srv.Start(ctx); err != nil {
		panic(err)
	}
	defer srv.Shutdown(ctx)
	web := httptest.NewServer(srv)
	defer web.Close()

	alice := connect(web.URL, "token-of-alice")
	defer alice.CloseNow()
	send(alice, `{"event":"add","data":[1,2,3],"id":"17"}`)
	fmt.Println(receive(alice))
	// Output:
	// {"event":"add","data":6,"id":"17"}
}

// Cookie sessions: FromRequest takes the cookie from the HTTP request of the opening handshake, and
// Authenticate decides about it.
func ExampleUpgrade() {
	ctx := context.Background()
	srv, err := hearth.New(hearth.Config[struct{}, User]{
		Upgrade: hearth.Upgrade{FromRequest: func(r *http.Request) (any, error) {
			cookie, err := r.Cookie("session")
			if err != nil {
				return nil, hearth.ErrRejected // the handshake is answered with 401
			}
			return cookie.Value, nil
		}},
		Authenticate: func(_ context.Context, r hearth.AuthRequest[struct{}]) (hearth.Identity[User], error) {
			session := r.FromRequest.(string) // look it up in the session store
			return hearth.Identity[User]{UserID: session}, nil
		},
	})
	if err != nil {
		panic(err)
	}
	if err := srv.Start(ctx); err != nil {
		panic(err)
	}
	defer srv.Shutdown(ctx)
	web := httptest.NewServer(srv)
	defer web.Close()

	_, resp, _ := websocket.Dial(ctx, web.URL, nil)
	fmt.Println(resp.Status)
	header := http.Header{"Cookie": {"session=carol"}}
	carol, _, err := websocket.Dial(ctx, web.URL, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		panic(err)
	}
	defer carol.CloseNow()
	send(carol, `{"event":"authenticate"}`)
	receive(carol)
	fmt.Println(srv.Local().Count(hearth.ToUser("carol")))
	// Output:
	// 401 Unauthorized
	// 1
}

// A Sender may be a server or an emitter.
func ExampleSender() {
	notify := func(ctx context.Context, s hearth.Sender, user, text string) error {
		return s.Send(ctx, hearth.ToUser(user), "notice", text)
	}
	_ = notify
}

func ExampleLocal_Send() {
	ctx := context.Background()
	srv, err := hearth.New(hearth.Config[Login, User]{Authenticate: authenticate})
	if err != nil {
		panic(err)
	}
	if err := srv.Start(ctx); err != nil {
		panic(err)
	}
	defer srv.Shutdown(ctx)
	web := httptest.NewServer(srv)
	defer web.Close()

	phone, laptop := connect(web.URL, "token-of-carol"), connect(web.URL, "token-of-carol")
	defer phone.CloseNow()
	defer laptop.CloseNow()
	// Raw JSON is sent unchanged.
	if err := srv.Local().Send(ctx, hearth.ToUser("carol"), "price", json.RawMessage(`19.90`)); err != nil {
		panic(err)
	}
	fmt.Println(receive(phone))
	fmt.Println(receive(laptop))
	// Output:
	// {"event":"price","data":19.90}
	// {"event":"price","data":19.90}
}

// connect authenticates a client and waits for `connected`.
func connect(url, token string) *websocket.Conn {
	conn, _, err := websocket.Dial(context.Background(), url+"/ws", nil)
	if err != nil {
		panic(err)
	}
	send(conn, `{"event":"authenticate","data":{"token":"`+token+`"}}`)
	receive(conn)
	return conn
}

func send(conn *websocket.Conn, message string) {
	if err := conn.Write(context.Background(), websocket.MessageText, []byte(message)); err != nil {
		panic(err)
	}
}

func receive(conn *websocket.Conn) string {
	_, message, err := conn.Read(context.Background())
	if err != nil {
		panic(err)
	}
	return string(message)
}
