// Package behaviour is the server's side of the behaviour suite (docs/clients.md): a real server,
// and a network between it and the clients that fails when a script says so.
package behaviour

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
)

// Login is what the clients of the suite authenticate with.
type Login struct {
	User string `json:"user"`
	// For is in how many milliseconds the credentials expire; 0 for never.
	For int `json:"for,omitempty"`
	// Do is "reject" to be rejected, "fail" to make the application fail.
	Do string `json:"do,omitempty"`
}

// Config is the configuration of the server, the argument of the step "start".
type Config struct {
	// History is how many messages the rooms keep whose names begin with "h:". Default: these rooms
	// have no history.
	History int
	// Encryption is a hearth.EncryptionMode; a client that is encrypted may send nothing else.
	Encryption string
	// Heartbeat is Timeouts.Heartbeat in milliseconds. Clients send heartbeats three times as
	// often, and the server looks for silent clients as often.
	Heartbeat int
	// DefaultRooms are the default rooms. Default: those of Hearth.
	DefaultRooms []string
	// Resume makes the server issue and accept tickets, for this many seconds. Default: it does not.
	Resume int
	// Drain is Timeouts.Drain in milliseconds.
	Drain int
	// Buffer is Limits.BackpressureLimit. Default: that of Hearth.
	Buffer int
}

// Server is the server of the suite.
type Server = hearth.Server[Login, struct{}]

// World is a server and its network. All methods are safe for concurrent use; Do is called for one
// step after the other.
type World struct {
	net *network

	mu       sync.Mutex
	bus      *memory.Bus // keeps the history while servers come and go; guarded by mu
	size     int         // of the history; guarded by mu
	srv      *Server     // nil: none is running; guarded by mu
	web      *http.Server
	serving  *sync.WaitGroup
	pipes    *pipes
	attempts int  // calls of Authenticate; guarded by mu
	flapping bool // clients are closed when they are connected; guarded by mu
}

// New makes a World without a server. It must be closed.
func New() *World { return &World{net: newNetwork()} }

// Dial connects a client to the server through the network.
func (w *World) Dial(ctx context.Context) (net.Conn, error) { return w.net.dial(ctx) }

// Accept passes a client's connection through the network to the server.
func (w *World) Accept(ctx context.Context, conn net.Conn) error { return w.net.connect(ctx, conn) }

// Server returns the running server; nil if there is none.
func (w *World) Server() *Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.srv
}

// Send sends an event to a target, as the step "send" names it.
func (w *World) Send(ctx context.Context, target, event string, data any) error {
	srv := w.Server()
	if srv == nil {
		return errors.New("no server is running")
	}
	return srv.Send(ctx, targetOf(target), event, data)
}

// Drain waits until nothing waits for clients.
func (w *World) Drain(ctx context.Context) error {
	srv := w.Server()
	if srv == nil {
		return nil
	}
	return srv.Local().WaitPending(ctx, hearth.ToAll(), 0)
}

// Dials returns how many connections clients have tried to make.
func (w *World) Dials() int {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	return w.net.dials
}

// Close ends the server and the network, and waits for both.
func (w *World) Close() error {
	w.net.freeze(false)
	err := w.stop(false)
	w.net.close()
	return err
}

// Start starts a server. It fails if one is running.
func (w *World) Start(cfg Config) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.srv != nil {
		return errors.New("a server is running")
	}
	srv, err := w.newServer(cfg)
	if err != nil {
		return err
	}
	if err := srv.Start(context.Background()); err != nil {
		return err
	}
	w.srv, w.pipes, w.web, w.serving = srv, newPipes(), &http.Server{Handler: srv}, &sync.WaitGroup{}
	web, ln := w.web, w.pipes
	w.serving.Go(func() { _ = web.Serve(ln) }) // ends with web; stop waits
	w.net.to(w.pipes)
	return nil
}

// stop ends the server, if one is running: in an orderly way, or at once and without close frames.
func (w *World) stop(orderly bool) error {
	w.mu.Lock()
	srv, web, serving := w.srv, w.web, w.serving
	w.srv = nil
	w.mu.Unlock()
	if srv == nil {
		return nil
	}
	w.net.to(nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !orderly {
		w.net.cut()
	}
	err := srv.Shutdown(ctx)
	_ = web.Close() // an error is about the listener, which is in memory
	serving.Wait()
	return err
}

// newServer makes a server. w.mu is locked.
func (w *World) newServer(cfg Config) (*Server, error) {
	if w.bus == nil || w.size != cfg.History {
		var m memory.Config
		if cfg.History > 0 {
			m.History = []hearth.HistoryRule{{Rooms: "h:*", Size: cfg.History, Age: time.Hour}}
		}
		w.bus, w.size = memory.NewBus(m), cfg.History
	}
	srv, err := hearth.New(hearth.Config[Login, struct{}]{
		Transport: hearth.TransportNetConn, Logger: slog.New(slog.DiscardHandler), Broker: w.bus.Broker(), DefaultRooms: cfg.DefaultRooms,
		Encryption: hearth.Encryption{Mode: hearth.EncryptionMode(cfg.Encryption), Only: true},
		Resume: hearth.Resume{
			Enabled: cfg.Resume > 0, Lifetime: time.Duration(cfg.Resume) * time.Second, Keys: [][]byte{bytes.Repeat([]byte("k"), 32)},
		},
		Timeouts: hearth.Timeouts{
			Drain:     time.Duration(cfg.Drain) * time.Millisecond,
			Heartbeat: time.Duration(cfg.Heartbeat) * time.Millisecond, HeartbeatInterval: time.Duration(cfg.Heartbeat) * time.Millisecond / 3,
		},
		Limits:       hearth.Limits{BackpressureLimit: cfg.Buffer},
		Authenticate: w.authenticate, ValidateRooms: validate, Connected: w.connected,
	})
	if err == nil {
		handle(srv)
	}
	return srv, err
}

func (w *World) authenticate(_ context.Context, r hearth.AuthRequest[Login]) (hearth.Identity[struct{}], error) {
	w.mu.Lock()
	w.attempts++
	w.mu.Unlock()
	id := hearth.Identity[struct{}]{UserID: r.Credentials.User}
	if ms := r.Credentials.For; ms > 0 {
		id.ExpiresAt = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	switch r.Credentials.Do {
	case "reject":
		return id, hearth.ErrRejected
	case "fail":
		return id, errors.New("the database is down")
	}
	return id, nil
}

// connected closes the client if the server is flapping.
func (w *World) connected(_ context.Context, c *hearth.Client[struct{}]) {
	w.mu.Lock()
	flapping := w.flapping
	w.mu.Unlock()
	if flapping {
		_ = c.Disconnect(1012, "Service restart") // an error means that it has disconnected
	}
}

// validate rejects the rooms whose names begin with "secret". It fails for "broken", and has an
// error of the application for "own-error".
func validate(_ context.Context, _ *hearth.Client[struct{}], rooms []string) ([]string, error) {
	var allowed []string
	for _, name := range rooms {
		switch {
		case name == "broken":
			return nil, errors.New("the database is down")
		case name == "own-error":
			return nil, &hearth.ClientError{Code: "paid", Message: "This room costs money"}
		case !strings.HasPrefix(name, "secret"):
			allowed = append(allowed, name)
		}
	}
	return allowed, nil
}

// handle registers the handlers of the suite.
func handle(srv *Server) {
	type client = hearth.Client[struct{}]
	hearth.HandleRequest(srv, "echo", func(_ context.Context, _ *client, v json.RawMessage) (json.RawMessage, error) { return v, nil })
	hearth.Handle(srv, "done", func(context.Context, *client, hearth.Message) error { return nil })
	hearth.Handle(srv, "never", func(context.Context, *client, hearth.Message) error { return hearth.ErrReplyLater })
	hearth.Handle(srv, "fail", func(context.Context, *client, hearth.Message) error {
		return &hearth.ClientError{Code: "no", Message: "It fails"}
	})
	hearth.Handle(srv, "say", func(ctx context.Context, c *client, m struct{ Room, Text string }) error {
		if !c.In(m.Room) {
			return &hearth.ClientError{Code: "forbidden", Message: "Join the room first"}
		}
		return srv.Send(ctx, hearth.ToRoom(m.Room), "said", m.Text)
	})
}

// Do performs a step of the server: its name and its arguments.
func (w *World) Do(ctx context.Context, step []json.RawMessage) error {
	name, args := "", arguments(step)
	if err := args.take(&name); err != nil {
		return err
	}
	err := w.perform(ctx, name, &args)
	if err == nil && len(args) > 0 {
		err = fmt.Errorf("it has %d arguments too many", len(args))
	}
	if err != nil {
		return fmt.Errorf("server %s: %w", name, err)
	}
	return nil
}

func (w *World) perform(ctx context.Context, name string, args *arguments) error {
	switch name {
	case "start":
		var cfg Config
		if len(*args) > 0 {
			if err := args.take(&cfg); err != nil {
				return err
			}
		}
		return w.Start(cfg)
	case "stop":
		return w.stop(true)
	case "kill":
		return w.stop(false)
	case "cut":
		w.net.cut()
		return nil
	case "freeze", "thaw":
		w.net.freeze(name == "freeze")
		return nil
	case "flap":
		w.mu.Lock()
		defer w.mu.Unlock()
		return args.take(&w.flapping)
	case "attempts": // the least and the largest number, or the exact one
		var least, most int
		if err := args.take(&least); err != nil {
			return err
		}
		if most = least; len(*args) > 0 {
			if err := args.take(&most); err != nil {
				return err
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.attempts < least || w.attempts > most {
			return fmt.Errorf("there were %d calls of Authenticate, not %d to %d", w.attempts, least, most)
		}
		return nil
	}
	srv := w.Server()
	if srv == nil {
		return errors.New("no server is running")
	}
	return command(ctx, srv, name, args)
}

// command performs a step that needs a server.
func command(ctx context.Context, srv *Server, name string, args *arguments) error {
	var target, event, room string
	var data json.RawMessage
	switch name {
	case "send": // target, event, data: "room:tea", "user:ada" or "all"
		if err := args.take(&target, &event, &data); err != nil {
			return err
		}
		return srv.Send(ctx, targetOf(target), event, data)
	case "ask": // user, event, data, answer, code
		var code string
		var want json.RawMessage
		if err := args.take(&target, &event, &data, &want, &code); err != nil {
			return err
		}
		return ask(ctx, srv, targetOf(target), event, data, want, code)
	case "disconnect": // target, code, reason
		var code int
		var reason string
		if err := args.take(&target, &code, &reason); err != nil {
			return err
		}
		_, err := srv.Disconnect(ctx, targetOf(target), code, reason)
		return err
	case "remove-history":
		if err := args.take(&room); err != nil {
			return err
		}
		return srv.RemoveHistory(ctx, room)
	case "members": // target, number: waits until there are so many
		var n int
		if err := args.take(&target, &n); err != nil {
			return err
		}
		for srv.Local().Count(targetOf(target)) != n {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("%d members, not %d", srv.Local().Count(targetOf(target)), n)
			}
		}
		return nil
	}
	return errors.New("there is no such step")
}

// ask asks the clients of a target, which must answer with this data or this code.
func ask(ctx context.Context, srv *Server, t hearth.Target, event string, data, want json.RawMessage, code string) error {
	asked := 0
	var wrong error
	err := hearth.AskEach(ctx, srv.Local(), t, event, data, func(_ *hearth.Client[struct{}], answer json.RawMessage, err error) {
		asked++
		got := ""
		if e, ok := errors.AsType[*hearth.AnswerError](err); ok {
			got = e.Code
		} else if err != nil {
			wrong = err
		}
		if got != code || code == "" && string(answer) != string(want) {
			wrong = errors.Join(wrong, fmt.Errorf("the answer is %s, with the error %q", answer, err))
		}
	})
	if err == nil && asked == 0 {
		err = errors.New("there is no client")
	}
	return errors.Join(err, wrong)
}

// targetOf returns the target of a text.
func targetOf(text string) hearth.Target {
	kind, name, _ := strings.Cut(text, ":")
	switch kind {
	case "room":
		return hearth.ToRoom(name)
	case "user":
		return hearth.ToUser(name)
	case "all":
		return hearth.ToAll()
	}
	return hearth.Target{} // Send reports that it is invalid
}

// arguments are the rest of a step.
type arguments []json.RawMessage

// take decodes the next arguments.
func (a *arguments) take(into ...any) error {
	for _, v := range into {
		if len(*a) == 0 {
			return errors.New("an argument is missing")
		}
		if err := json.Unmarshal((*a)[0], v); err != nil {
			return fmt.Errorf("argument %s: %w", (*a)[0], err)
		}
		*a = (*a)[1:]
	}
	return nil
}
