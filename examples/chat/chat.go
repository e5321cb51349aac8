package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hearthws/hearth"
)

// login is what a client authenticates with.
type login struct {
	Name string `json:"name"`
}

// person is kept with each client.
type person struct{ name string }

type client = hearth.Client[person]

// A line is what people get: said to a room, or whispered.
type line struct {
	From string `json:"from"`
	Room string `json:"room,omitempty"`
	Text string `json:"text"`
}

// chat is the application.
type chat struct {
	srv *hearth.Server[login, person]
}

func newChat(log *slog.Logger) (*chat, error) {
	c := &chat{}
	srv, err := hearth.New(hearth.Config[login, person]{
		Name:          "chat",
		DefaultRooms:  []string{"lobby"},
		Logger:        log,
		Authenticate:  c.authenticate,
		ValidateRooms: c.validateRooms,
		Connected:     c.connected,
		Message:       c.message,
		Disconnected:  c.disconnected,
	})
	c.srv = srv
	return c, err
}

// authenticate lets in whoever has a name. A real one looks at a token here, and may take its time.
func (c *chat) authenticate(_ context.Context, r hearth.AuthRequest[login]) (hearth.Identity[person], error) {
	name := strings.TrimSpace(r.Credentials.Name)
	if name == "" || utf8.RuneCountInString(name) > 32 {
		return hearth.Identity[person]{}, fmt.Errorf("%w: a name has 1 to 32 characters", hearth.ErrRejected)
	}
	return hearth.Identity[person]{UserID: strings.ToLower(name), Metadata: person{name}}, nil
}

// validateRooms keeps people out of the rooms of the house.
func (c *chat) validateRooms(_ context.Context, _ *client, rooms []string) ([]string, error) {
	return slices.DeleteFunc(rooms, func(room string) bool { return strings.HasPrefix(room, "staff-") }), nil
}

func (c *chat) connected(ctx context.Context, sender *client) {
	c.notify(ctx, hearth.ToRoom("lobby"), "came", line{From: sender.Metadata().name}, sender.ID())
}

func (c *chat) disconnected(ctx context.Context, sender *client, _ int, _ string) {
	c.notify(ctx, hearth.ToRoom("lobby"), "left", line{From: sender.Metadata().name})
}

// notify publishes what nobody is waiting for: if it can't be sent there is nobody to tell.
func (c *chat) notify(ctx context.Context, to hearth.Target, event string, data any, exclude ...string) {
	_ = c.srv.Send(ctx, to.Except(exclude...), event, data)
}

// errRejected is told to the client in its own words; everything else stays in the log.
var errRejected = errors.New("refused")

// message divides what clients send. Those of one client come one after the other; it may take its time.
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
	return c.srv.Send(ctx, hearth.ToRoom(said.Room), "said", line{sender.Metadata().name, said.Room, said.Text})
}

func (c *chat) whisper(ctx context.Context, sender *client, data json.RawMessage) error {
	var said struct{ To, Text string }
	if err := json.Unmarshal(data, &said); err != nil {
		return fmt.Errorf("%w: %w", errRejected, err)
	}
	// All of the user's tabs and phones get it, on whatever node they are.
	to := hearth.ToUser(strings.ToLower(said.To))
	return c.srv.Send(ctx, to, "whispered", line{From: sender.Metadata().name, Text: said.Text})
}

// who lists the people of a room on this node.
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
