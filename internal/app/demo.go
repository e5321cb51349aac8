package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/protocol"
)

// Development mode: anybody is who they say they are, and may talk in any room. The handlers below serve the page at /,
// and are an example of what an application's own do.
//
//	client sends                          server sends
//	say {room, text}, with an id          say {id, from, room, text, time, ack} to the room
//	whisper {user, text}, with an id      whisper {id, from, user, text, time, ack} to that user's clients
//	shout {text}, with an id              shout {id, from, text, time, ack} to everybody
//	                                      accepted {id, clients, more} to the sender: how many it went to, on all servers;
//	                                      more: at least, since one did not say
//	seen {id, to}, where ack was true     seen {id, user, client} to the client `to`, which is the sender
//	who {room}, or {} for all             who {room, total, elsewhere, clients: [{user, client}]}: those here by name, those on
//	                                      other servers by number
//	rooms                                 rooms {total, clients, rooms: [{name, clients}], servers}: of this server
//	                                      presence {room} to everybody, after a join, a leave, a connect or a disconnect:
//	                                      ask again who is where
//	                                      refused {id, event, why}: what was sent had no effect

const (
	maxName     = 64   // letters of a user's name
	maxRoomName = 64   // letters of a room's name
	maxText     = 2000 // letters of a message
	maxID       = 64   // bytes of a message's id

	// Past this many receivers nobody is asked to confirm, and nobody is told about comings and goings: either costs
	// as much as receivers times senders.
	maxReceipts = 200

	maxListed  = 100  // clients or rooms in one answer
	maxScanned = 1000 // clients of a room that are worth looking at to list some

	listTTL = time.Second // how long a list of rooms is good for

	countTimeout = time.Second // how long other servers may take to say how many clients they have
)

// credentials is what a client sends to authenticate: {"name": "ada"}.
type credentials struct {
	Name string `json:"name"`
}

// A visitor is what the server remembers of one connection. Owned by the connection's callbacks, which run one at a time.
type visitor struct {
	actions bucket // everything but seen and moves
	seen    bucket
	moves   bucket // joins and leaves that others hear of
}

type demo struct {
	// Set before the server starts, then read-only.
	log *slog.Logger
	srv *hearth.Server[credentials, *visitor]

	mu          sync.Mutex // guards the fields below
	list        roomList
	listExpires time.Time // when list is to be made anew
}

type client = hearth.Client[*visitor]

type sender struct {
	User   string `json:"user"`
	Client string `json:"client"`
}

type delivery struct {
	ID   string    `json:"id,omitempty"`
	From sender    `json:"from"`
	Room string    `json:"room,omitempty"`
	User string    `json:"user,omitempty"`
	Text string    `json:"text"`
	Time time.Time `json:"time"`
	Ack  bool      `json:"ack"`
}

type roomList struct {
	Total   int         `json:"total"`
	Clients int         `json:"clients"`
	Rooms   []roomCount `json:"rooms"`
	Servers int         `json:"servers"`
}

type roomCount struct {
	Name    string `json:"name"`
	Clients int    `json:"clients"`
}

// A request is any event's data: each event uses some of the fields.
type request struct {
	Room string `json:"room"`
	User string `json:"user"`
	Text string `json:"text"`
	ID   string `json:"id"`
	To   string `json:"to"`
}

func newDemo(log *slog.Logger) *demo { return &demo{log: log} }

func (d *demo) authenticate(_ context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[*visitor], error) {
	if err := checkName("name", req.Credentials.Name, maxName); err != nil {
		d.log.Info("refused a user", "why", err, "client", req.ClientID, "address", req.RemoteAddr)
		return hearth.Identity[*visitor]{}, hearth.ErrRejected
	}
	// Both stand still while nobody talks; the numbers are far above what a person does, and far below what hurts.
	v := &visitor{actions: bucket{perSecond: 20, size: 40}, seen: bucket{perSecond: 500, size: 1000}, moves: bucket{perSecond: 20, size: 40}}
	return hearth.Identity[*visitor]{UserID: req.Credentials.Name, Metadata: v}, nil
}

func (d *demo) validateRooms(_ context.Context, _ *client, rooms []string) ([]string, error) {
	return slices.DeleteFunc(slices.Clone(rooms), func(r string) bool { return checkName("room", r, maxRoomName) != nil }), nil
}

func (d *demo) connected(ctx context.Context, c *client) {
	d.log.Info("client connected", "user", c.UserID(), "client", c.ID(), "address", c.RemoteAddr())
	d.presence(ctx, "")
}

func (d *demo) disconnected(ctx context.Context, c *client, code int, reason string) {
	d.log.Info("client disconnected", "user", c.UserID(), "client", c.ID(), "code", code, "reason", reason)
	d.presence(ctx, "")
}

// joined announces that a client has joined a room. A client that joins and leaves too often is not
// announced: the pages find out when they ask the next time.
func (d *demo) joined(ctx context.Context, c *client, room string) {
	if c.Metadata().moves.take(time.Now()) {
		d.presence(ctx, room)
	}
}

// left announces that a client has left a room. For a client that has gone, disconnected does so.
func (d *demo) left(ctx context.Context, c *client, room string) {
	if c.State() != protocol.StateDisconnected {
		d.joined(ctx, c, room)
	}
}

// presence tells everybody that who is where has changed; they ask for what they want to know of it.
func (d *demo) presence(ctx context.Context, room string) {
	if n := d.srv.Local().Count(hearth.ToAll()); n == 0 || n > maxReceipts {
		return
	}
	if err := d.srv.Send(ctx, hearth.ToAll(), "presence", map[string]string{"room": room}); err != nil && !errors.Is(err, hearth.ErrServerClosed) {
		d.log.Warn("publish presence", "error", err)
	}
}

// A rejection is an error that the client is told: it asked for what cannot be.
type rejection string

func (r rejection) Error() string { return string(r) }

// message handles what a client sends beyond the protocol's own events.
func (d *demo) message(ctx context.Context, c *client, m hearth.Message) error {
	var id string
	if len(m.ID) > 0 && (json.Unmarshal(m.ID, &id) != nil || len(id) > maxID) {
		id = "" // not one of the page's; the message itself may still be good
	}
	err := d.dispatch(ctx, c, m, id)
	var why rejection
	if errors.As(err, &why) {
		return c.Send("refused", map[string]string{"id": id, "event": limited(m.Event), "why": why.Error()})
	}
	return err
}

func (d *demo) dispatch(ctx context.Context, c *client, m hearth.Message, id string) error {
	allowance := &c.Metadata().actions
	if m.Event == "seen" {
		allowance = &c.Metadata().seen
	}
	if !allowance.take(time.Now()) {
		return rejection("too fast: wait a moment")
	}
	var req request
	if len(m.Data) > 0 && json.Unmarshal(m.Data, &req) != nil {
		return rejection("data must be an object, as in {\"room\": \"lobby\", \"text\": \"hello\"}")
	}
	switch m.Event {
	case "say", "whisper", "shout":
		return d.deliver(ctx, c, m.Event, id, req)
	case "seen":
		return d.confirm(ctx, c, req)
	case "who":
		return d.who(ctx, c, req.Room)
	case "rooms":
		return c.Send("rooms", d.rooms(time.Now()))
	}
	return rejection("no such event: there are say, whisper, shout, seen, who and rooms")
}

// deliver passes a text on to where the event says, and tells the sender how many that was.
func (d *demo) deliver(ctx context.Context, c *client, event, id string, req request) error {
	if n := utf8.RuneCountInString(req.Text); strings.TrimSpace(req.Text) == "" || n > maxText {
		return rejection(fmt.Sprintf("text must have 1 to %d letters", maxText))
	}
	out := delivery{ID: id, From: sender{c.UserID(), c.ID()}, Text: req.Text, Time: time.Now().UTC().Truncate(time.Millisecond)}
	var target hearth.Target
	switch event {
	case "say":
		if !slices.Contains(c.Rooms(), req.Room) {
			return rejection("join the room first")
		}
		out.Room, target = req.Room, hearth.ToRoom(req.Room)
	case "whisper":
		if err := checkName("user", req.User, maxName); err != nil {
			return err
		}
		out.User, target = req.User, hearth.ToUser(req.User)
	case "shout":
		target = hearth.ToAll()
	}
	receivers, more := d.count(ctx, target)
	out.Ack = id != "" && receivers <= maxReceipts
	if err := d.srv.Send(ctx, target, event, out); err != nil {
		return fmt.Errorf("publish %s: %w", event, err)
	}
	if id == "" {
		return nil
	}
	return c.Send("accepted", map[string]any{"id": id, "clients": receivers, "ack": out.Ack, "more": more})
}

// count is how many clients the target has, on all servers; more says that one of them has not answered.
func (d *demo) count(ctx context.Context, of hearth.Target) (n int, more bool) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	n, err := d.srv.Count(ctx, of)
	if err != nil {
		d.log.Debug("count clients", "error", err)
	}
	return max(n, d.srv.Local().Count(of)), err != nil
}

// confirm tells a sender that c has its message. Whether there was such a message only the sender knows.
func (d *demo) confirm(ctx context.Context, c *client, req request) error {
	if req.ID == "" || len(req.ID) > maxID || req.To == "" || len(req.To) > maxID {
		return rejection("seen takes the id of a message, and in `to` the client that sent it")
	}
	if err := d.srv.Send(ctx, hearth.ToClient(req.To), "seen", map[string]string{"id": req.ID, "user": c.UserID(), "client": c.ID()}); err != nil {
		return fmt.Errorf("publish seen: %w", err)
	}
	return nil
}

// who lists a room's clients; without a room, all.
func (d *demo) who(ctx context.Context, c *client, room string) error {
	of := hearth.ToAll()
	if room != "" {
		if err := checkName("room", room, maxRoomName); err != nil {
			return err
		}
		of = hearth.ToRoom(room)
	}
	here := d.srv.Local().Count(of)
	total, more := d.count(ctx, of)
	members := []sender{}
	if here <= maxScanned {
		for _, m := range d.srv.Local().Clients(of) {
			members = append(members, sender{m.UserID(), m.ID()})
		}
	}
	slices.SortFunc(members, func(a, b sender) int {
		if n := strings.Compare(a.User, b.User); n != 0 {
			return n
		}
		return strings.Compare(a.Client, b.Client)
	})
	return c.Send("who", map[string]any{"room": room, "total": total, "elsewhere": max(0, total-here), "more": more, "clients": members[:min(len(members), maxListed)]})
}

// rooms lists the fullest rooms, without those that are a client's own. Looking at every room of a full server costs
// time, so all clients share one list for a moment.
func (d *demo) rooms(now time.Time) roomList {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Before(d.listExpires) && d.srv.Local().Count(hearth.ToAll()) > maxReceipts {
		return d.list
	}
	rooms := []roomCount{}
	for _, name := range d.srv.Local().Rooms() {
		if _, own := d.srv.Local().Client(name); !own {
			rooms = append(rooms, roomCount{name, d.srv.Local().Count(hearth.ToRoom(name))})
		}
	}
	slices.SortFunc(rooms, func(a, b roomCount) int {
		if a.Clients != b.Clients {
			return b.Clients - a.Clients
		}
		return strings.Compare(a.Name, b.Name)
	})
	d.list = roomList{Total: len(rooms), Clients: d.srv.Local().Count(hearth.ToAll()), Rooms: rooms[:min(len(rooms), maxListed)], Servers: d.srv.Stats().Nodes}
	d.listExpires = now.Add(listTTL)
	return d.list
}

// checkName lets through what a person can read and tell apart: no control or invisible letters, no blanks around.
func checkName(what, s string, most int) error {
	n := utf8.RuneCountInString(s)
	if n < 1 || n > most || len(s) > 256 {
		return rejection(fmt.Sprintf("%s must have 1 to %d letters", what, most))
	}
	odd := func(r rune) bool {
		return r == utf8.RuneError || r != ' ' && !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r)
	}
	if strings.TrimSpace(s) != s || strings.ContainsFunc(s, odd) || strings.HasPrefix(s, "ws:") {
		return rejection(what + " must be plain text, without blanks around it")
	}
	return nil
}

// A bucket allows a number of actions a second, and some saved up. A new one is full. Not for concurrent use.
type bucket struct {
	perSecond, size float64

	used float64
	last time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.used = max(0, b.used-b.perSecond*now.Sub(b.last).Seconds())
	b.last = now
	if b.used+1 > b.size {
		return false
	}
	b.used++
	return true
}
