package client

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/hearthws/hearth/protocol"
)

// RoomState is the state of a Room.
type RoomState int

const (
	// RoomJoining means that the client is not a member: it is not connected, or the server has not
	// answered yet.
	RoomJoining RoomState = iota
	// RoomRecovering means that the client is a member, and missed messages are arriving.
	RoomRecovering
	// RoomJoined means that the client is a member.
	RoomJoined
	// RoomRejected means that the server has rejected the join. The client does not try again.
	RoomRejected
	// RoomLeft means that Leave was called, or that the client was closed.
	RoomLeft
)

// String returns the name of the state in lower case.
func (s RoomState) String() string {
	names := [...]string{"joining", "recovering", "joined", "rejected", "left"}
	if s < 0 || int(s) >= len(names) {
		return "RoomState(" + strconv.Itoa(int(s)) + ")"
	}
	return names[s]
}

// UnrecoveredLost is a reason in RoomStatus.Unrecovered, next to those of package protocol: the
// room has no history, or the client does not know its position, and the client was away.
const UnrecoveredLost = "lost"

// RoomStatus is the status of a Room.
type RoomStatus struct {
	State RoomState // of the room

	// Err is why the room was rejected or left: an *Error with the code of the server for
	// RoomRejected, ErrClosed for RoomLeft if the client was closed.
	Err error

	// Recovered is how many missed messages follow this status, if State is RoomRecovering.
	Recovered int

	// Unrecovered is not empty if messages may be missing between the last message and the next
	// one: UnrecoveredLost, or the reason of the server, such as protocol.UnrecoveredEvicted. The
	// program should load the data that it shows again. It is set in the first status after the
	// gap, and not in later ones.
	Unrecovered string

	// Position is that of the last message. It is the zero Position if the room has no history.
	Position protocol.Position
}

// RoomConfig configures a Room. The zero value is ready to use.
type RoomConfig struct {
	// Last is how many of the newest messages the client wants when it joins for the first time, if
	// the room has history.
	Last int

	// After is a position from which the client continues instead, such as the Position of a
	// RoomStatus that the program has stored. Default: none.
	After protocol.Position

	// Changed is called when the status changes, but not for a new Position only. See the package
	// comment for callbacks. Default: none.
	Changed func(RoomStatus)
}

// Room is a room that a client has joined or wants to join. The client joins it again after each
// loss of the connection, until Leave or until the server rejects it. All methods are safe for
// concurrent use.
type Room struct {
	c    *Client
	name string
	cfg  RoomConfig

	// Guarded by c.mu.
	status  RoomStatus
	changed chan struct{} // closed when the state changes, and replaced
	joinID  string        // the id of the join that is under way; empty: none
	member  bool          // the client was a member before
	left    int           // recovered messages that are still to come
	end     position      // the position after these
	failed  bool          // the server could not decide; the client tries again
	fresh   bool          // the join under way is the first on this connection
	again   bool          // the join under way follows a leave, because the first has recovered nothing
}

// Join joins a room, now if the client is connected, and after each connection. It does not block:
// Room.Wait does. A client that is not connected sends the messages of Send after the joins.
// Errors: the name is not valid (protocol.CheckRoom), ErrJoined, ErrQueueFull, ErrClosed.
func (c *Client) Join(name string, cfg RoomConfig) (*Room, error) {
	r := &Room{c: c, name: name, cfg: cfg, changed: make(chan struct{}), status: RoomStatus{Position: cfg.After}}
	if err := c.join(r); err != nil {
		return nil, fmt.Errorf("client: join %.80q: %w", name, err)
	}
	return r, nil
}

func (c *Client) join(r *Room) error {
	if err := protocol.CheckRoom(r.name); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state.Phase == Closed:
		return closed(c.state.Err)
	case c.rooms[r.name] != nil:
		return ErrJoined
	}
	if c.conn != nil {
		r.fresh = true
		for _, text := range c.joinLocked([]*Room{r}) {
			if err := c.out.control(text); err != nil {
				return err
			}
		}
		if !c.conn.state.Extension {
			r.joinedLocked(position{}, 0, "") // there will be no answer
		}
	}
	c.rooms[r.name] = r
	delete(c.left, r.name)
	return nil
}

// Name returns the name of the room.
func (r *Room) Name() string { return r.name }

// Status returns the present status. Its Unrecovered is that of the last change.
func (r *Room) Status() RoomStatus {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return r.status
}

// Wait waits until the client is a member of the room. It returns nil then, the error of ctx if
// that is done before, or the error of the status if the room was rejected or left.
func (r *Room) Wait(ctx context.Context) error {
	for {
		r.c.mu.Lock()
		s, changed := r.status, r.changed
		r.c.mu.Unlock()
		switch s.State {
		case RoomJoined, RoomRecovering:
			return nil
		case RoomRejected:
			return fmt.Errorf("client: join %.80q: %w", r.name, s.Err)
		case RoomLeft:
			err := s.Err
			if err == nil {
				err = errLeft
			}
			return fmt.Errorf("client: join %.80q: %w", r.name, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("client: join %.80q: %w", r.name, ctx.Err())
		}
	}
}

var errLeft = &Error{Code: "left", Message: "The client has left the room"}

// Leave leaves the room, and ends its Room: to join again, call Client.Join. It does not wait for
// the server: messages of the room that are on their way still arrive.
func (r *Room) Leave() {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rooms[r.name] != r {
		return // it was left or rejected before
	}
	delete(c.rooms, r.name)
	r.setLocked(RoomStatus{State: RoomLeft, Position: r.status.Position})
	c.noteLeftLocked(r)
	if c.conn == nil {
		return
	}
	if err := c.out.control(c.leaveLocked([]string{r.name})); err != nil {
		c.conn.fail(fmt.Errorf("leave a room: %w", err)) // the next connection is without the room
	}
}

// maxLeft is the largest number of elements of Client.left.
const maxLeft = 1024

// noteLeftLocked notes that a session that is resumed may still have the room. With too many such
// rooms, the session is not resumed.
func (c *Client) noteLeftLocked(r *Room) {
	if c.ticket == "" || !r.member && r.joinID == "" {
		return
	}
	if len(c.left) >= maxLeft {
		c.ticket = ""
		clear(c.left)
		return
	}
	c.left[r.name] = true
}

// setLocked changes the status and reports it.
func (r *Room) setLocked(s RoomStatus) {
	r.status = s
	close(r.changed)
	r.changed = make(chan struct{})
	if f := r.cfg.Changed; f != nil {
		r.c.calls.add(call{f: func() { f(s) }})
	}
}

// joinData is the data of a join.
type joinData struct {
	Rooms     []string            `json:"rooms"`
	Positions map[string]position `json:"positions,omitempty"`
	Last      map[string]int      `json:"last,omitempty"`
}

// maxJoin is how many rooms are in one join, so that it is smaller than any reasonable limit for
// messages: a name has at most 768 bytes, which JSON can double.
const maxJoin = 32

// joinLocked returns the messages that join rooms, and sets what the rooms wait for.
func (c *Client) joinLocked(rooms []*Room) (texts [][]byte) {
	for some := range slices.Chunk(rooms, maxJoin) {
		id := c.nextIDLocked()
		data := joinData{Positions: map[string]position{}, Last: map[string]int{}}
		for _, r := range some {
			r.joinID, r.failed, r.left = id, false, 0
			data.Rooms = append(data.Rooms, r.name)
			switch p := r.status.Position; {
			case p != position{}:
				data.Positions[r.name] = p
			case r.cfg.Last > 0 && !r.member:
				data.Last[r.name] = r.cfg.Last
			}
		}
		texts = append(texts, c.roomsMessage(protocol.EventJoin, id, data))
	}
	return texts
}

// leaveLocked returns the message that leaves rooms.
func (c *Client) leaveLocked(names []string) []byte {
	return c.roomsMessage(protocol.EventLeave, c.nextIDLocked(), joinData{Rooms: names})
}

func (c *Client) roomsMessage(event, id string, data joinData) []byte {
	raw, err := json.Marshal(data)
	if err != nil { // valid names and numbers always encode
		c.log.Error("a message was not sent", "event", event, "err", err)
	}
	return protocol.AppendReply(nil, event, raw, []byte(strconv.Quote(id)))
}

// joinAnswer is the data of the answer to a join.
type joinAnswer struct {
	Joined []struct {
		Room        string `json:"room"`
		Offset      uint64 `json:"offset"`
		Epoch       string `json:"epoch"`
		Recovered   int    `json:"recovered"`
		Unrecovered string `json:"unrecovered"`
	} `json:"joined"`
	Rejected []struct {
		Room string `json:"room"`
		Code string `json:"code"`
	} `json:"rejected"`
}

// joinedLocked handles the answer to the join with this id.
func (c *Client) joinedLocked(id string, a joinAnswer) {
	for _, j := range a.Joined {
		if r := c.rooms[j.Room]; r != nil && r.joinID == id {
			r.joinedLocked(position{Offset: j.Offset, Epoch: j.Epoch}, j.Recovered, j.Unrecovered)
		}
	}
	for _, j := range a.Rejected {
		if r := c.rooms[j.Room]; r != nil && r.joinID == id {
			r.rejectedLocked(&Error{Code: j.Code})
		}
	}
}

// joinedLocked makes the client a member. p is the position at which the live messages begin.
func (r *Room) joinedLocked(p position, recovered int, unrecovered string) {
	had, fresh, again := r.status.Position, r.fresh, r.again
	r.joinID, r.fresh, r.again = "", false, false
	none := position{}
	if skipped := had != none && p != none && had != p && recovered == 0 && unrecovered == ""; skipped && fresh {
		// The server had made the client a member before, so the join has recovered nothing.
		r.again = true
		r.c.controlLocked(append([][]byte{r.c.leaveLocked([]string{r.name})}, r.c.joinLocked([]*Room{r})...)...)
		return
	} else if skipped && again {
		unrecovered = UnrecoveredLost
	}
	if r.member && unrecovered == "" && (had == none || p == none) {
		unrecovered = UnrecoveredLost
	}
	r.member = true
	s := RoomStatus{State: RoomJoined, Unrecovered: unrecovered, Position: p}
	if recovered > 0 && unrecovered == "" {
		// The position moves with the messages: the connection may be lost before they are here.
		r.left, r.end = recovered, p
		s.State, s.Recovered, s.Position = RoomRecovering, recovered, had
	}
	r.setLocked(s)
}

// rejectedLocked ends the room, or lets the client try again if the server could not decide.
func (r *Room) rejectedLocked(err *Error) {
	r.joinID = ""
	if err.Code == protocol.RejectInternal {
		r.failed = true
		return
	}
	delete(r.c.rooms, r.name)
	r.setLocked(RoomStatus{State: RoomRejected, Err: err, Position: r.status.Position})
}

// joinFailedLocked handles an error in answer to the join with this id. The application has
// rejected the join, which may have been for several rooms: then each is asked for alone.
func (c *Client) joinFailedLocked(id string, err *Error) (isJoin bool) {
	var rooms []*Room
	for _, r := range c.rooms {
		if r.joinID == id {
			rooms = append(rooms, r)
		}
	}
	if len(rooms) == 1 {
		rooms[0].rejectedLocked(err)
		return true
	}
	for i := range rooms {
		c.controlLocked(c.joinLocked(rooms[i : i+1])...)
	}
	return len(rooms) > 0
}

// controlLocked queues control messages. If there are too many, it gives up the connection: the
// next one begins with all of them.
func (c *Client) controlLocked(texts ...[]byte) {
	for _, text := range texts {
		if err := c.out.control(text); err != nil && c.conn != nil {
			c.conn.fail(fmt.Errorf("join rooms: %w", err))
			return
		}
	}
}

// interruptedLocked joins rooms again that the server has taken from the client.
func (c *Client) interruptedLocked(names []string) {
	var rooms []*Room
	for _, name := range names {
		if r := c.rooms[name]; r != nil && r.joinID == "" && !r.failed {
			r.setLocked(RoomStatus{State: RoomJoining, Position: r.status.Position})
			rooms = append(rooms, r)
		}
	}
	c.controlLocked(c.joinLocked(rooms)...)
}

// receivedLocked notes the position of a message. It returns false if the message is a duplicate.
func (c *Client) receivedLocked(name string, p position) bool {
	r := c.rooms[name]
	if r == nil || p.Epoch == "" {
		return true
	}
	had := r.status.Position
	switch {
	case r.joinID != "" && had != position{}:
		return false // the server had made the client a member; the join recovers the message
	case had.Epoch == p.Epoch && p.Offset <= had.Offset:
		return false
	}
	r.status.Position = p
	if r.status.State != RoomRecovering {
		return true
	}
	// The status changes after the last recovered message: the caller queues the message first.
	r.left--
	return true
}

// recoveredLocked ends the recovery of a room whose missed messages have arrived.
func (c *Client) recoveredLocked(name string) {
	r := c.rooms[name]
	if r == nil || r.status.State != RoomRecovering {
		return
	}
	p := r.status.Position
	if r.left <= 0 || p.Epoch == r.end.Epoch && p.Offset >= r.end.Offset {
		if p.Epoch == r.end.Epoch {
			p.Offset = max(p.Offset, r.end.Offset)
		}
		r.setLocked(RoomStatus{State: RoomJoined, Position: p})
	}
}

// failedLocked joins rooms again for which the server could not decide.
func (c *Client) failedLocked() {
	var rooms []*Room
	for _, r := range c.rooms {
		if r.failed {
			rooms = append(rooms, r)
		}
	}
	c.controlLocked(c.joinLocked(rooms)...)
}

// disconnectedLocked makes all rooms wait for the next connection.
func (c *Client) disconnectedLocked() {
	for _, r := range c.rooms {
		r.joinID, r.failed, r.fresh, r.again, r.left = "", false, false, false, 0
		if r.status.State != RoomJoining {
			r.setLocked(RoomStatus{State: RoomJoining, Position: r.status.Position})
		}
	}
}
