package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// TestScripts plays testdata/script/*.txt, which list the exact messages of clients and server. It
// uses each transport and a WebSocket library that shares no code with this project. A line is the
// name of a client, or `server`, and an action:
//
//	a connect               connect a client and call it a
//	a > {"event":…}         send this text; a >> … sends it as a binary message
//	a < {…}                 expect this message next: $a is the id of a, $time is any time
//	a login [user]          authenticate and expect connected
//	a log text              expect this call of a callback for a (see scriptApp)
//	a close 1000 reason     close the connection
//	a closed 4003 reason    expect this close frame next
//	server broadcast|room|user|client|send|join|leave|disconnect|release|count …
//	server rejects …        an action of the server that must fail
//	config no-message|no-validator|payload=n …   options, before any other line
//
// There is no line for "receives no message": the next expected message would differ.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			forTransports(t, func(t *testing.T, transport hearth.Transport) { play(t, file, transport) })
		})
	}
}

// actor plays a script.
type actor struct {
	t         *testing.T
	cfg       config
	scriptApp *scriptApp
	rig       *rig
	peers     map[string]*peer
}

func play(t *testing.T, file string, transport hearth.Transport) {
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	a := &actor{t: t, scriptApp: newScriptApp(), peers: make(map[string]*peer)}
	a.cfg = a.scriptApp.config()
	a.cfg.Transport = transport
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := a.perform(line); err != nil {
			t.Fatalf("%s:%d: %s\n%v", file, n, line, err)
		}
	}
	must(t, lines.Err())
}

func (a *actor) perform(line string) error {
	name, what, _ := strings.Cut(line, " ")
	verb, rest, _ := strings.Cut(strings.TrimSpace(what), " ")
	if name == "config" {
		return a.configure(strings.Fields(what))
	}
	if a.rig == nil {
		a.rig = start(a.t, a.cfg)
	}
	rest = a.fill(rest)
	if name == "server" {
		return a.serve(verb, strings.Fields(rest))
	}
	if verb == "connect" {
		a.peers[name] = a.rig.coderPeer(websocket.CompressionDisabled)
		return nil
	}
	p, ok := a.peers[name]
	if !ok {
		return errors.New("no client of that name has connected")
	}
	switch verb {
	case ">":
		return p.wire.send(opText, []byte(rest))
	case ">>":
		return p.wire.send(opBinary, []byte(rest))
	case "<":
		got := p.next().String()
		if id := connectedID.FindStringSubmatch(got); id != nil && p.id == "" {
			p.id = id[1]
		}
		return a.matches(got, "message "+a.fill(rest))
	case "closed", "close":
		code, reason, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(code)
		if verb == "close" {
			p.bye(n, reason)
			return err
		}
		return a.matches(p.next().String(), fmt.Sprintf("close %d %q", n, reason))
	case "login":
		if err := p.wire.send(opText, fmt.Appendf(nil, `{"event":"authenticate","data":{"name":%q,"as":%q}}`, name, rest)); err != nil {
			return err
		}
		p.welcome()
		return nil
	case "log":
		line, ok := a.scriptApp.log(name).take(answer)
		if !ok {
			return errors.New("no callback was called")
		}
		return a.matches(strings.TrimSpace(line), rest)
	}
	return errors.New("unknown action of a client")
}

// fill replaces the names of clients by their ids.
func (a *actor) fill(text string) string {
	for name, p := range a.peers {
		if p.id != "" {
			text = strings.ReplaceAll(text, "$"+name, p.id)
		}
	}
	return text
}

var anyTime = regexp.MustCompile(`"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`)

// connectedID finds the id in connected: a UUID of version 4.
var connectedID = regexp.MustCompile(`^message {"event":"connected","data":{"id":"([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})"`)

func (a *actor) matches(got, want string) error {
	if got = anyTime.ReplaceAllLiteralString(got, `"time":"$time"`); got != want {
		return fmt.Errorf("got  %s\nwant %s", got, want)
	}
	return nil
}

func (a *actor) configure(options []string) error {
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		n, _ := strconv.Atoi(value)
		switch name {
		case "no-message":
			a.cfg.Message = nil
		case "no-validator":
			a.cfg.ValidateRooms = nil
		case "payload":
			a.cfg.Limits.MaxPayload, a.cfg.Limits.UnauthenticatedPayload = n, n
		case "rooms":
			a.cfg.DefaultRooms = strings.Split(value, ",")
		case "no-rooms":
			a.cfg.DefaultRooms = []string{}
		case "max-rooms":
			a.cfg.Limits.MaxRooms = n
		case "compression":
			a.cfg.Compression = true
		default:
			return fmt.Errorf("there is no option %q", o)
		}
	}
	return nil
}

// serve performs an action of the server, which the application's other goroutines would perform.
func (a *actor) serve(verb string, args []string) error {
	s, ctx := a.rig, a.t.Context()
	arg := func(i int) string {
		if i < len(args) && args[i] != `""` {
			return args[i]
		}
		return ""
	}
	rest := args[min(3, len(args)):]
	switch verb {
	case "rejects":
		if err := a.serve(args[0], args[1:]); err == nil {
			return errors.New("the server accepted it")
		}
		return nil
	case "broadcast":
		return s.Local().Send(ctx, hearth.ToAll().Except(args[min(2, len(args)):]...), arg(0), payload(arg(1)))
	case "room":
		return s.Local().Send(ctx, hearth.ToRoom(arg(0)).Except(rest...), arg(1), payload(arg(2)))
	case "user":
		return s.Local().Send(ctx, hearth.ToUser(arg(0)), arg(1), payload(arg(2)))
	case "client":
		return s.Local().Send(ctx, hearth.ToClient(arg(0)), arg(1), payload(arg(2)))
	case "send":
		return s.Send(ctx, s.Destination(arg(0)), arg(1), payload(arg(2)))
	case "join":
		return joinRoom(ctx, s, arg(0), args[1:]...)
	case "leave":
		return leaveRoom(s, arg(0), args[1:]...)
	case "disconnect":
		code, _ := strconv.Atoi(arg(1))
		return disconnect(s, arg(0), code, strings.Join(args[2:], " "))
	case "release":
		a.scriptApp.release <- struct{}{}
		return nil
	case "count":
		if got := strconv.Itoa(s.Local().Count(hearth.ToRoom(arg(0)))); got != arg(1) {
			return fmt.Errorf("the room has %s members", got)
		}
		return nil
	case "rooms":
		got, want := s.Local().Rooms(), strings.Split(arg(0), ",")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("rooms: %q", got)
		}
		return nil
	}
	return errors.New("unknown action of the server")
}

// payload is the data of an event, or nil if the text is empty.
func payload(text string) any {
	if text == "" {
		return hearth.NoData{}
	}
	return raw(text)
}

// scriptApp is an application that records the calls of its callbacks.
type scriptApp struct {
	release chan struct{} // lets an authentication that was told to wait continue

	mu   sync.Mutex
	logs map[string]*itemQueue[string] // by client
}

func newScriptApp() *scriptApp {
	return &scriptApp{release: make(chan struct{}), logs: make(map[string]*itemQueue[string])}
}

func (s *scriptApp) log(client string) *itemQueue[string] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[client] == nil {
		s.logs[client] = newItemQueue[string]()
	}
	return s.logs[client]
}

func (s *scriptApp) config() config {
	return config{
		Limits:        hearth.Limits{UnauthenticatedMessages: 100},
		Authenticate:  s.authenticate,
		ValidateRooms: s.validate,
		Message:       s.message,
		Connected: func(_ context.Context, c *client) {
			s.log(c.Metadata().Name).put("connected " + strings.Join(c.Rooms()[1:], ","))
		},
		Disconnected: func(_ context.Context, c *client, code int, reason string) {
			s.log(c.Metadata().Name).put(fmt.Sprintf("disconnected %d %s", code, reason))
		},
	}
}

func (s *scriptApp) authenticate(ctx context.Context, r hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
	s.log(r.Credentials.Name).put("authenticate " + string(r.Raw))
	switch r.Credentials.Do {
	case "reject":
		return hearth.Identity[profile]{}, fmt.Errorf("no such user: %w", hearth.ErrRejected)
	case "error":
		return hearth.Identity[profile]{}, errors.New("database is down")
	case "panic":
		panic("in authenticate")
	case "wait":
		select {
		case <-s.release:
		case <-ctx.Done():
			s.log(r.Credentials.Name).put("cancelled")
			return hearth.Identity[profile]{}, ctx.Err()
		}
	}
	return accept(ctx, r)
}

// validate allows what does not begin with "no".
func (s *scriptApp) validate(_ context.Context, c *client, rooms []string) ([]string, error) {
	s.log(c.Metadata().Name).put("validate " + strings.Join(rooms, ","))
	var allowed []string
	for _, name := range rooms {
		switch extra, gives := strings.CutPrefix(name, "give:"); {
		case gives:
			allowed = append(allowed, extra)
		case name == "error":
			return rooms, errors.New("no answer")
		case name == "panic":
			panic("in validate")
		case !strings.HasPrefix(name, "no"):
			allowed = append(allowed, name)
		}
	}
	clear(rooms) // the validator may change the slice
	return allowed, nil
}

func (s *scriptApp) message(_ context.Context, c *client, m hearth.Message) error {
	s.log(c.Metadata().Name).put(fmt.Sprintf("message %s %s %s", m.Event, m.Data, m.ID))
	switch m.Event {
	case "echo":
		return c.Send("echo", m.Data)
	case "rooms":
		rooms := c.Rooms() // its own room first
		own := 0
		if len(rooms) > 0 && rooms[0] == c.ID() {
			own = 1
		}
		slices.Sort(rooms[own:])
		return c.Send("rooms", rooms)
	case "fail":
		return errors.New("handler failed")
	case "panic":
		panic("in message")
	}
	return nil
}
