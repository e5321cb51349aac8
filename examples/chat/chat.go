package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/hearthws/hearth"
)

// login is the data of authenticate.
type login struct {
	Name string `json:"name"`
}

// person is the state of each client.
type person struct{ name string }

type client = hearth.Client[person]

// A line is a message to the members of a room or to a user.
type line struct {
	// No is the number of the line in its room, from 1 on, by which clients sort lines and drop
	// duplicates.
	No   int    `json:"no,omitempty"`
	From string `json:"from"`
	Room string `json:"room,omitempty"`
	Text string `json:"text"`
}

// A visit is the event that tells the members of a room that a person joined or left.
type visit struct {
	From string `json:"from"`
	Room string `json:"room"`
}

// chat is the application.
type chat struct {
	srv *hearth.Server[login, person]

	mu      sync.Mutex        // guards the field below
	history map[string][]line // the latest lines of each room with members
}

// remembered is the number of lines of a room that the history keeps.
const remembered = 50

func newChat(log *slog.Logger) (*chat, error) {
	c := &chat{history: make(map[string][]line)}
	srv, err := hearth.New(hearth.Config[login, person]{
		Name:          "chat",
		DefaultRooms:  []string{"lobby"},
		Logger:        log,
		Authenticate:  c.authenticate,
		ValidateRooms: c.validateRooms,
		Joined:        c.joined,
		Left:          c.left,
		Message:       c.message,
	})
	c.srv = srv
	return c, err
}

// authenticate accepts any name. A real application would check a token here; it may block.
func (c *chat) authenticate(_ context.Context, r hearth.AuthRequest[login]) (hearth.Identity[person], error) {
	name := strings.TrimSpace(r.Credentials.Name)
	if name == "" || utf8.RuneCountInString(name) > 32 {
		return hearth.Identity[person]{}, fmt.Errorf("%w: a name has 1 to 32 characters", hearth.ErrRejected)
	}
	return hearth.Identity[person]{UserID: strings.ToLower(name), Metadata: person{name}}, nil
}

// validateRooms keeps clients out of the staff rooms.
func (c *chat) validateRooms(_ context.Context, _ *client, rooms []string) ([]string, error) {
	return slices.DeleteFunc(rooms, func(room string) bool { return strings.HasPrefix(room, "staff-") }), nil
}

// joined sends the history to the new member, which also receives every later line, and so misses
// none. A line that is sent at the same moment may arrive twice, with the same number.
func (c *chat) joined(ctx context.Context, sender *client, room string) {
	c.mu.Lock()
	// Send fails if the client has disconnected.
	_ = sender.Send("history", append([]line{}, c.history[room]...))
	c.mu.Unlock()
	c.notify(ctx, hearth.ToRoom(room), "came", visit{sender.Metadata().name, room}, sender.ID())
}

// left is also called for clients that close the page.
func (c *chat) left(ctx context.Context, sender *client, room string) {
	c.mu.Lock()
	if c.srv.Local().Count(hearth.ToRoom(room)) == 0 {
		delete(c.history, room)
	}
	c.mu.Unlock()
	c.notify(ctx, hearth.ToRoom(room), "left", visit{sender.Metadata().name, room})
}

// notify sends an event and ignores errors: no client waits for an answer.
func (c *chat) notify(ctx context.Context, to hearth.Target, event string, data any, exclude ...string) {
	_ = c.srv.Send(ctx, to.Except(exclude...), event, data)
}

// errRejected marks errors that are sent to the client. All other errors are only logged.
var errRejected = errors.New("rejected")

// message dispatches the events. Messages of one client arrive one after the other; the callback
// may block.
func (c *chat) message(ctx context.Context, sender *client, m hearth.Message) error {
	var err error
	switch m.Event {
	case "say":
		err = c.say(ctx, sender, m.Data)
	case "whisper":
		err = c.whisper(ctx, sender, m.Data)
	case "who":
		err = c.who(sender, m.Data)
	default:
		err = fmt.Errorf("%w: there is no event %q", errRejected, m.Event)
	}
	if errors.Is(err, errRejected) {
		return sender.Send("sorry", err.Error())
	}
	return err
}

func (c *chat) say(ctx context.Context, sender *client, data json.RawMessage) error {
	var said struct{ Room, Text string }
	if err := json.Unmarshal(data, &said); err != nil {
		return fmt.Errorf("%w: %w", errRejected, err)
	}
	if !slices.Contains(sender.Rooms(), said.Room) {
		return fmt.Errorf("%w: you are not in %q", errRejected, said.Room)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	past := c.history[said.Room]
	l := line{No: 1, From: sender.Metadata().name, Room: said.Room, Text: said.Text}
	if len(past) > 0 {
		l.No = past[len(past)-1].No + 1
	}
	// The line is stored before it is sent: see joined.
	c.history[said.Room] = append(past[max(0, len(past)-remembered+1):], l)
	return c.srv.Send(ctx, hearth.ToRoom(said.Room), "said", l)
}

func (c *chat) whisper(ctx context.Context, sender *client, data json.RawMessage) error {
	var said struct{ To, Text string }
	if err := json.Unmarshal(data, &said); err != nil {
		return fmt.Errorf("%w: %w", errRejected, err)
	}
	// Reaches all tabs and phones of the user, on any server.
	to := hearth.ToUser(strings.ToLower(said.To))
	return c.srv.Send(ctx, to, "whispered", line{From: sender.Metadata().name, Text: said.Text})
}

// who lists the people of a room on this server.
func (c *chat) who(sender *client, data json.RawMessage) error {
	var room string
	if err := json.Unmarshal(data, &room); err != nil {
		return fmt.Errorf("%w: %w", errRejected, err)
	}
	names := []string{}
	for _, member := range c.srv.Local().Clients(hearth.ToRoom(room)) {
		names = append(names, member.Metadata().name)
	}
	slices.Sort(names)
	return sender.Send("here", slices.Compact(names))
}
