package hearth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// Login is what clients of the examples authenticate with.
type Login struct {
	Token string
}

// User is what the examples keep with each client.
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

// A server is an http.Handler. What is published reaches every client, on this server and on others of the same broker.
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

// Clients may join the rooms that ValidateRooms allows, and what they send arrives at Message.
func ExampleConfig_rooms() {
	ctx := context.Background()
	var srv *hearth.Server[Login, User]
	srv, err := hearth.New(hearth.Config[Login, User]{
		Authenticate: authenticate,
		ValidateRooms: func(_ context.Context, _ *hearth.Client[User], rooms []string) ([]string, error) {
			return rooms, nil
		},
		Message: func(ctx context.Context, c *hearth.Client[User], m hearth.Message) error {
			return srv.Send(ctx, hearth.ToRoom("lobby"), "said", []any{c.Metadata().Name, m.Data})
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

	bob := connect(web.URL, "token-of-bob")
	defer bob.CloseNow()
	send(bob, `{"event":"join","data":{"rooms":["lobby"]}}`)
	send(bob, `{"event":"say","data":"hello"}`)
	fmt.Println(receive(bob))
	// Output:
	// {"event":"said","data":["bob","hello"]}
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
	// Raw JSON passes through untouched.
	if err := srv.Local().Send(ctx, hearth.ToUser("carol"), "price", json.RawMessage(`19.90`)); err != nil {
		panic(err)
	}
	fmt.Println(receive(phone))
	fmt.Println(receive(laptop))
	// Output:
	// {"event":"price","data":19.90}
	// {"event":"price","data":19.90}
}

// connect is what a client does: it authenticates, and is told that it is connected.
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
