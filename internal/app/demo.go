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

// Development mode: clients sign in with any name and may send to any room. The handlers below
// serve the page at /, and are an example for the callbacks of an application.
//
//	client sends                          server sends
//	say {id, room, text}                  say {id, from, room, text, time, ack} to the room
//	whisper {id, user, text}              whisper {id, from, user, text, time, ack} to that user's clients
//	shout {id, text}                      shout {id, from, text, time, ack} to all clients
//	                                      accepted {id, clients, more} to the sender: the number of
//	                                      receivers on all servers; more: at least that many,
//	                                      because a server did not answer in time
//	seen {id, to}, where ack was true     seen {id, user, client} to the client `to`, which is the sender
//	who {room}, or {} for all             who {room, total, elsewhere, clients: [{user, client}]}: lists
//	                                      the clients on this server, counts those on other servers
//	rooms                                 rooms {total, clients, rooms: [{name, clients}], servers}: of
//	                                      this server
//	                                      presence {room} to all clients, after a join, a leave, a
//	                                      connect or a disconnect: request the lists again
//	                                      rejected {id, event, why}: the message had no effect

const (
	maxName     = 64   // characters of a user's name
	maxRoomName = 64   // characters of a room's name
	maxText     = 2000 // characters of a message
	maxID       = 64   // bytes of a message's id

	// With more receivers than this the server does not request confirmations and does not announce
	// joins and leaves: their cost grows with receivers times senders.
	maxReceipts = 200

	maxListed  = 100  // clients or rooms in one answer
	maxScanned = 1000 // clients of a room beyond which it lists none, to bound the work

	listTTL = time.Second // how long a list of rooms is cached

	countTimeout = time.Second // how long to wait for the counts of other servers
)

// credentials is the data of authenticate: {"name": "ada"}.
type credentials struct {
	Name string `json:"name"`
}

// A visitor is the server's state of a connection. The connection's callbacks own it; they run one
// at a time.
type visitor struct {
	actions bucket // all events except seen, joins and leaves
	seen    bucket
	moves   bucket // joins and leaves that are announced
}

func newVisitor() *visitor {
	return &visitor{actions: bucket{perSecond: 20, size: 40}, seen: bucket{perSecond: 500, size: 1000}, moves: bucket{perSecond: 20, size: 40}}
}

// MarshalJSON writes nothing of v into a ticket: a client that resumes begins with full buckets.
func (v *visitor) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// UnmarshalJSON makes v the visitor of a client that resumes.
func (v *visitor) UnmarshalJSON([]byte) error {
	*v = *newVisitor()
	return nil
}

type demo struct {
	// Set before the server starts, then read-only.
	log *slog.Logger
	srv *hearth.Server[credentials, *visitor]

	mu          sync.Mutex // guards the fields below
	list        roomList
	listExpires time.Time // when the cached list expires
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

// A request is the data of any event. Each event uses some of the fields.
type request struct {
	Room string `json:"room"`
	User string `json:"user"`
	Text string `json:"text"`
	ID   string `json:"id"`
	To   string `json:"to"`
}

func newDemo(log *slog.Logger) *demo { return &demo{log: log} }

// callbacks sets the callbacks of a server in development mode.
func (d *demo) callbacks(hc *hearth.Config[credentials, *visitor]) {
	hc.Authenticate, hc.ValidateRooms, hc.Message = d.authenticate, d.validateRooms, d.message
	hc.Connected, hc.Disconnected, hc.Joined, hc.Left = d.connected, d.disconnected, d.joined, d.left
}

func (d *demo) authenticate(_ context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[*visitor], error) {
	if err := checkName("name", req.Credentials.Name, maxName); err != nil {
		d.log.Info("rejected a user", "why", err, "client", req.ClientID, "address", req.RemoteAddr)
		return hearth.Identity[*visitor]{}, hearth.ErrRejected
	}
	// The limits are far above what a person sends, and far below what harms the server.
	return hearth.Identity[*visitor]{UserID: req.Credentials.Name, Metadata: newVisitor()}, nil
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

// joined announces that a client has joined a room. If a client joins and leaves too often, it is
// not announced: pages see the change at their next refresh.
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

// presence tells all clients that the members of a room changed. The clients then request the lists
// that they show.
func (d *demo) presence(ctx context.Context, room string) {
	if n := d.srv.Local().Count(hearth.ToAll()); n == 0 || n > maxReceipts {
		return
	}
	if err := d.srv.Send(ctx, hearth.ToAll(), "presence", map[string]string{"room": room}); err != nil && !errors.Is(err, hearth.ErrServerClosed) {
		d.log.Warn("publish presence", "error", err)
	}
}

// A rejection is an error that is sent to the client: its request is invalid.
type rejection string

func (r rejection) Error() string { return string(r) }

// message handles the events that are not part of the protocol.
func (d *demo) message(ctx context.Context, c *client, m hearth.Message) error {
	id, err := d.dispatch(ctx, c, m)
	var why rejection
	if errors.As(err, &why) {
		return c.Send("rejected", map[string]string{"id": id, "event": limited(m.Event), "why": why.Error()})
	}
	return err
}

// dispatch returns the id of the message, if it has one.
func (d *demo) dispatch(ctx context.Context, c *client, m hearth.Message) (id string, err error) {
	if len(m.ID) > 0 && (json.Unmarshal(m.ID, &id) != nil || len(id) > maxID) {
		id = "" // not an id of the page; the message may still be valid
	}
	allowance := &c.Metadata().actions
	if m.Event == "seen" {
		allowance = &c.Metadata().seen
	}
	if !allowance.take(time.Now()) {
		return id, rejection("too many messages: wait a moment and try again")
	}
	var req request
	if len(m.Data) > 0 && json.Unmarshal(m.Data, &req) != nil {
		return id, rejection("data must be an object, as in {\"room\": \"lobby\", \"text\": \"hello\"}")
	}
	if id == "" && m.Event != "seen" && len(req.ID) <= maxID {
		id = req.ID
	}
	return id, d.handle(ctx, c, m.Event, id, req)
}

func (d *demo) handle(ctx context.Context, c *client, event, id string, req request) error {
	switch event {
	case "say", "whisper", "shout":
		return d.deliver(ctx, c, event, id, req)
	case "seen":
		return d.confirm(ctx, c, req)
	case "who":
		return d.who(ctx, c, req.Room)
	case "rooms":
		return c.Send("rooms", d.rooms(time.Now()))
	}
	return rejection("no such event: use say, whisper, shout, seen, who or rooms")
}

// deliver sends a text to the target of the event, and tells the sender the number of receivers.
func (d *demo) deliver(ctx context.Context, c *client, event, id string, req request) error {
	if n := utf8.RuneCountInString(req.Text); strings.TrimSpace(req.Text) == "" || n > maxText {
		return rejection(fmt.Sprintf("text must have 1 to %d characters", maxText))
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

// count returns the number of clients of the target on all servers. more says that a server did not
// answer in time.
func (d *demo) count(ctx context.Context, of hearth.Target) (n int, more bool) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	n, err := d.srv.Count(ctx, of)
	if err != nil {
		d.log.Debug("count clients", "error", err)
	}
	return max(n, d.srv.Local().Count(of)), err != nil
}

// confirm tells a sender that c has received its message. Only the sender knows whether that
// message exists.
func (d *demo) confirm(ctx context.Context, c *client, req request) error {
	if req.ID == "" || len(req.ID) > maxID || req.To == "" || len(req.To) > maxID {
		return rejection("seen takes the id of a message, and in `to` the client that sent it")
	}
	if err := d.srv.Send(ctx, hearth.ToClient(req.To), "seen", map[string]string{"id": req.ID, "user": c.UserID(), "client": c.ID()}); err != nil {
		return fmt.Errorf("publish seen: %w", err)
	}
	return nil
}

// who lists the clients of a room, or all clients.
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

// rooms lists the rooms with the most members, without the own rooms of clients. Scanning all rooms
// of a full server takes long, so all clients share one list for listTTL.
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

// checkName accepts names that people can read and tell apart: no control characters, no invisible
// characters, no surrounding spaces.
func checkName(what, s string, most int) error {
	n := utf8.RuneCountInString(s)
	if n < 1 || n > most || len(s) > 256 {
		return rejection(fmt.Sprintf("%s must have 1 to %d characters", what, most))
	}
	odd := func(r rune) bool {
		return r == utf8.RuneError || r != ' ' && !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r)
	}
	if strings.TrimSpace(s) != s || strings.ContainsFunc(s, odd) || strings.HasPrefix(s, "ws:") {
		return rejection(what + " must be plain text without surrounding spaces")
	}
	return nil
}

// A bucket is a rate limit: a number of actions per second, with a burst. A new bucket is full. Not
// for concurrent use.
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
