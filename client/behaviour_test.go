package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hearthws/hearth/client"
	"github.com/hearthws/hearth/internal/test/behaviour"
)

// script is one script of the behaviour suite, docs/clients.md.
type script struct {
	Name  string
	Steps [][]json.RawMessage
}

// TestBehaviour plays the scripts of the behaviour suite, each with a world and a clock of its own.
func TestBehaviour(t *testing.T) {
	t.Parallel()
	for name, s := range scripts(t) {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := emptyWorld(t)
				play(t, s, w, func(cfg client.Config) *client.Client { return newClient(t, w, cfg) })
			})
		})
	}
}

// TestBehaviourServed plays the scripts in real time, over TCP, against the program for clients in
// other languages. It leaves out those that take long.
func TestBehaviourServed(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes about 15 s")
	}
	t.Parallel()
	s := serve(t)
	for name, script := range scripts(t) {
		t.Run(name, func(t *testing.T) {
			if script.long() {
				t.Skip("the script takes too long in real time")
			}
			must(t, s.Do(t.Context(), parse(t, `["reset"]`)))
			var clients []*client.Client
			play(t, script, s, func(cfg client.Config) *client.Client {
				cfg.URL = s.Clients
				c, err := client.New(cfg)
				must(t, err)
				clients = append(clients, c)
				return c
			})
			for _, c := range clients {
				c.Close()
				<-c.Done()
			}
		})
	}
}

// served is the server's side of the suite over HTTP.
type served struct {
	Clients, Control string
	http             *http.Client
}

// serve starts it.
func serve(t *testing.T) *served {
	t.Helper()
	in, stop := io.Pipe()
	out, printed := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- behaviour.Serve(in, printed) }() // ends with in
	s := &served{http: &http.Client{Transport: &http.Transport{}}}
	must(t, json.NewDecoder(out).Decode(s))
	t.Cleanup(func() {
		stop.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.http.CloseIdleConnections()
	})
	return s
}

// Do performs a step of the server.
func (s *served) Do(ctx context.Context, step []json.RawMessage) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Control, strings.NewReader(join(step)))
	if err != nil {
		return err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusNoContent {
		err = errors.New(string(text))
	}
	return err
}

// long reports whether the script takes more than a few seconds.
func (s script) long() bool {
	ms := 0
	for _, step := range s.Steps {
		switch string(step[0]) {
		case `"sleep"`:
			var n int
			if json.Unmarshal(step[1], &n) == nil {
				ms += n
			}
		case `"state"`: // credentials that expire
			if strings.Contains(join(step), "4005") {
				ms += 1000 * 60
			}
		case `"server"`:
			if strings.Contains(join(step), "freeze") {
				ms += 1000 * 60
			}
		}
	}
	return ms > 2000
}

// scripts returns all scripts by name.
func scripts(t *testing.T) map[string]script {
	t.Helper()
	all := map[string]script{}
	files, err := filepath.Glob("behaviour/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		var scripts []script
		if err := json.Unmarshal(text, &scripts); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, s := range scripts {
			all[strings.TrimSuffix(filepath.Base(file), ".json")+"/"+s.Name] = s
		}
	}
	return all
}

// world is the server's side of the suite.
type world interface {
	Do(ctx context.Context, step []json.RawMessage) error
}

// player plays one script. The callbacks of the client fill the queues.
type player struct {
	t       *testing.T
	world   world
	connect func(client.Config) *client.Client
	client  *client.Client
	rooms   map[string]*playedRoom
	answers map[string]chan outcome // of request-later

	states chan client.State
	events chan client.Message
}

type playedRoom struct {
	room     *client.Room
	statuses chan client.RoomStatus
}

// outcome is what became of a request or a send.
type outcome struct {
	Reply json.RawMessage `json:"reply,omitempty"`
	Error string          `json:"error,omitempty"`
}

const manyEvents = 100_000

func play(t *testing.T, s script, w world, connect func(client.Config) *client.Client) {
	p := &player{t: t, world: w, connect: connect, rooms: map[string]*playedRoom{}, answers: map[string]chan outcome{},
		states: make(chan client.State, manyEvents), events: make(chan client.Message, manyEvents)}
	for i, step := range s.Steps {
		if err := p.perform(step); err != nil {
			t.Fatalf("step %d, %s: %v", i+1, join(step), err)
		}
	}
}

func join(step []json.RawMessage) string {
	text, err := json.Marshal(step)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func parse(t testing.TB, text string) (step []json.RawMessage) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), &step))
	return step
}

// take decodes the next elements of a step. Those that are missing keep their values.
func take(step []json.RawMessage, into ...any) error {
	for i, v := range into {
		if i >= len(step) {
			return nil
		}
		if err := json.Unmarshal(step[i], v); err != nil {
			return fmt.Errorf("argument %d: %w", i+1, err)
		}
	}
	if len(step) > len(into) {
		return errors.New("there are too many arguments")
	}
	return nil
}

// perform performs one step.
func (p *player) perform(step []json.RawMessage) error {
	var name string
	if len(step) == 0 || json.Unmarshal(step[0], &name) != nil {
		return errors.New("a step begins with its name")
	}
	step = step[1:]
	switch name {
	case "server":
		return p.world.Do(p.t.Context(), step)
	case "client":
		return p.newClient(step)
	case "sleep":
		var ms int
		err := take(step, &ms)
		<-time.After(time.Duration(ms) * time.Millisecond)
		return err
	}
	if p.client == nil {
		return errors.New("there is no client")
	}
	switch name {
	case "connect":
		ctx, cancel := context.WithCancel(p.t.Context())
		cancel()
		_ = p.client.Connect(ctx) // does not wait
		return nil
	case "close":
		p.client.Close()
		return nil
	case "answer-with":
		var event string
		var with outcome
		if err := take(step, &event, &with); err != nil {
			return err
		}
		client.Answer(p.client, event, func(context.Context, json.RawMessage) (json.RawMessage, error) {
			if with.Error != "" {
				return nil, &client.Error{Code: with.Error}
			}
			return orNull(with.Reply), nil
		})
		return nil
	case "state":
		return p.state(step)
	case "join", "leave", "room":
		return p.room(name, step)
	case "event":
		return p.event(step)
	case "send", "request", "request-later", "answer":
		return p.request(name, step)
	}
	return errors.New("there is no such step")
}

// newClient performs "client".
func (p *player) newClient(step []json.RawMessage) error {
	var cfg struct {
		Credentials json.RawMessage
		Sequence    []struct {
			Credentials json.RawMessage
			Error       string
		}
		Encryption bool
		Queue      int
		Full       string
	}
	if err := take(step, &cfg); err != nil {
		return err
	}
	full := map[string]client.Overflow{"": client.Wait, "reject": client.Reject, "drop-oldest": client.DropOldest}
	config := client.Config{Encryption: cfg.Encryption, QueueMessages: cfg.Queue, QueueFull: full[cfg.Full],
		OnState: func(s client.State) { p.states <- s }}
	if cfg.Credentials != nil {
		config.Credentials = cfg.Credentials
	}
	if next := cfg.Sequence; next != nil {
		config.CredentialsFunc = func(context.Context) (any, error) {
			if len(next) == 0 {
				return nil, fmt.Errorf("the script has no more credentials: %w", client.ErrStop)
			}
			this := next[0]
			next = next[1:]
			switch this.Error {
			case "":
				return this.Credentials, nil
			case "stop":
				return nil, client.ErrStop
			}
			return nil, errors.New(this.Error)
		}
	}
	p.client = p.connect(config)
	client.On(p.client, "", func(m client.Message) { p.events <- m })
	return nil
}

// within is how long a step waits at most.
const within = 3 * time.Minute

// state performs "state".
func (p *player) state(step []json.RawMessage) error {
	var phase string
	var want struct {
		Code                                    int
		Reason, User, Error                     string
		Encrypted, Extension, Recovery, Resumed *bool
	}
	if err := take(step, &phase, &want); err != nil {
		return err
	}
	for {
		select {
		case s := <-p.states:
			if s.Phase.String() != phase {
				continue
			}
			code, reason := 0, ""
			if e, ok := errors.AsType[*client.CloseError](s.Err); ok {
				code, reason = e.Code, e.Reason
			}
			for name, is := range map[string]bool{
				"code": want.Code == 0 || want.Code == code, "reason": want.Reason == "" || want.Reason == reason,
				"user": want.User == "" || want.User == s.UserID, "error": want.Error == "" || want.Error == errorName(s.Err),
				"encrypted": is(want.Encrypted, s.Encrypted), "extension": is(want.Extension, s.Extension),
				"recovery": is(want.Recovery, s.Recovery), "resumed": is(want.Resumed, s.Resumed),
			} {
				if !is {
					return fmt.Errorf("another %s: %+v", name, s)
				}
			}
			return nil
		case <-time.After(within):
			return fmt.Errorf("no such state; it is %+v", p.client.State())
		}
	}
}

func is(want *bool, got bool) bool { return want == nil || *want == got }

// errorName returns the name of an error in scripts: the code of the server, or one of the
// client's.
func errorName(err error) string {
	for name, known := range map[string]error{
		"disconnected": client.ErrDisconnected, "queue-full": client.ErrQueueFull, "too-large": client.ErrTooLarge,
		"not-encrypted": client.ErrNotEncrypted, "stop": client.ErrStop, "timeout": context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return name
		}
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Code
	}
	if errors.Is(err, client.ErrClosed) {
		return "closed"
	}
	if err == nil {
		return ""
	}
	return "other: " + err.Error()
}

// room performs "join", "leave" and "room".
func (p *player) room(step string, args []json.RawMessage) error {
	var name, state string
	if step == "join" {
		var cfg client.RoomConfig
		if err := take(args, &name, &cfg); err != nil {
			return err
		}
		r := &playedRoom{statuses: make(chan client.RoomStatus, manyEvents)}
		cfg.Changed = func(s client.RoomStatus) { r.statuses <- s }
		room, err := p.client.Join(name, cfg)
		r.room, p.rooms[name] = room, r
		return err
	}
	var want struct {
		Recovered         int
		Unrecovered, Code string
	}
	if err := take(args, &name, &state, &want); err != nil {
		return err
	}
	r := p.rooms[name]
	if r == nil {
		return errors.New("it was not joined")
	}
	if step == "leave" {
		r.room.Leave()
		return nil
	}
	for {
		select {
		case s := <-r.statuses:
			if s.State.String() != state {
				continue
			}
			if s.Recovered != want.Recovered || s.Unrecovered != want.Unrecovered || errorName(s.Err) != want.Code {
				return fmt.Errorf("got %+v", s)
			}
			return nil
		case <-time.After(within):
			return fmt.Errorf("no such status; it is %+v", r.room.Status())
		}
	}
}

// event performs "event".
func (p *player) event(step []json.RawMessage) error {
	var event string
	var data any
	if err := take(step, &event, &data); err != nil {
		return err
	}
	select {
	case m := <-p.events:
		var got any
		if err := m.Decode(&got); err != nil {
			return err
		}
		if diff := cmp.Diff(data, got); m.Event != event || diff != "" {
			return fmt.Errorf("got %s %s", m.Event, m.Data)
		}
		return nil
	case <-time.After(within):
		return errors.New("nothing has arrived")
	}
}

// request performs "send", "request", "request-later" and "answer".
func (p *player) request(name string, step []json.RawMessage) error {
	var key, event string
	var data json.RawMessage
	var want outcome
	options := struct{ Within int }{}
	switch name {
	case "send":
		if err := take(step, &event, &data, &want); err != nil {
			return err
		}
		if got := errorName(p.client.Send(p.t.Context(), event, data)); got != want.Error {
			return fmt.Errorf("got %q", got)
		}
		return nil
	case "request-later":
		if err := take(step, &key, &event, &data, &options); err != nil {
			return err
		}
		answer := make(chan outcome, 1)
		p.answers[key] = answer
		go func() { answer <- p.ask(event, data, options.Within) }() // ends with the client; "answer" waits
		return nil
	case "answer":
		if err := take(step, &key, &want); err != nil {
			return err
		}
		return same(<-p.answers[key], want)
	}
	if err := take(step, &event, &data, &want, &options); err != nil {
		return err
	}
	return same(p.ask(event, data, options.Within), want)
}

// ask makes a request, for at most ms milliseconds.
func (p *player) ask(event string, data json.RawMessage, ms int) outcome {
	if ms == 0 {
		ms = int(within / time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(ms)*time.Millisecond)
	defer cancel()
	reply, err := client.Request[json.RawMessage](ctx, p.client, event, data)
	return outcome{reply, errorName(err)}
}

func same(got, want outcome) error {
	a, b := any(nil), any(nil)
	if err := errors.Join(json.Unmarshal(orNull(got.Reply), &a), json.Unmarshal(orNull(want.Reply), &b)); err != nil {
		return err
	}
	if got.Error != want.Error || !cmp.Equal(a, b) {
		return fmt.Errorf("got reply %s, error %q", got.Reply, got.Error)
	}
	return nil
}

func orNull(data json.RawMessage) json.RawMessage {
	if data == nil {
		return json.RawMessage("null")
	}
	return data
}
