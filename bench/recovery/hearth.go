package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// A hearthTalk is a conversation in the protocol of Hearth (docs/protocol.md), with the extension
// if the server has it. The reference speaks the same protocol without the extension.
type hearthTalk struct {
	*session
	recovers bool // the server has granted recovery
}

var hearthDialect = dialect{path: "/ws", speak: func(s *session) conversation { return &hearthTalk{session: s} }}

// A hearthMessage is a message of the server.
type hearthMessage struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	ID     string          `json:"id"`
	Hearth *granted        `json:"hearth"`
	position
}

// granted is the answer of the server to the request for the extension.
type granted struct {
	Features  []string `json:"features"`
	Heartbeat struct {
		Interval int `json:"interval"`
		Timeout  int `json:"timeout"`
	} `json:"heartbeat"`
	Resumed *joinAnswer `json:"resumed"`
}

// joinAnswer is the data of the answer to a join.
type joinAnswer struct {
	Joined []struct {
		Room string `json:"room"`
		position
		Recovered   int    `json:"recovered"`
		Unrecovered string `json:"unrecovered"`
	} `json:"joined"`
	Rejected []struct {
		Room string `json:"room"`
		Code string `json:"code"`
	} `json:"rejected"`
}

// roomMessage is the data of a message to a room.
type roomMessage struct {
	Room   string `json:"room"`
	Number int    `json:"n"`
}

const joinID = "j" // the id of a join

func (t *hearthTalk) begin() error {
	if t.tickets && t.ticket != "" {
		return t.authenticate(t.ticket)
	}
	return t.authenticate("")
}

// authenticate sends the ticket with the positions, or credentials without a ticket.
func (t *hearthTalk) authenticate(ticket string) error {
	type request struct {
		Version   int                 `json:"version"`
		Features  []string            `json:"features"`
		Ticket    string              `json:"ticket,omitempty"`
		Positions map[string]position `json:"positions,omitempty"`
	}
	type message struct {
		Event  string    `json:"event"`
		Data   *struct{} `json:"data,omitempty"`
		Hearth request   `json:"hearth"`
	}
	m := message{Event: "authenticate", Hearth: request{Version: 1, Features: []string{"recovery"}, Ticket: ticket}}
	if t.tickets {
		m.Hearth.Features = append(m.Hearth.Features, "resume")
	}
	if ticket != "" {
		m.Hearth.Positions = t.positions
	} else {
		m.Data = &struct{}{}
	}
	return t.sendJSON(m)
}

func (t *hearthTalk) heartbeat() error { return t.send([]byte(`{"event":"heartbeat"}`)) }

func (t *hearthTalk) sendJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.send(text)
}

func (t *hearthTalk) handle(payload []byte) error {
	var m hearthMessage
	if err := json.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("read a message of the server: %w", err)
	}
	switch m.Event {
	case "m":
		var data roomMessage
		if err := json.Unmarshal(m.Data, &data); err != nil {
			return fmt.Errorf("read a message of a room: %w", err)
		}
		t.message(data.Room, data.Number, m.position)
		return nil
	case "connected":
		return t.connected(m.Hearth)
	case "join":
		return t.answer(m.Data, m.ID)
	case "hearth:ticket":
		var data struct{ Ticket string }
		if err := json.Unmarshal(m.Data, &data); err != nil {
			return fmt.Errorf("read a ticket: %w", err)
		}
		t.ticket = data.Ticket
		return nil
	case "hearth:interrupted", "resync":
		return t.gap(m)
	case "e": // the answer of a server without the extension, after its join
		t.session.join(true)
		return nil
	case "error":
		return t.failed(m.Data)
	}
	return nil // a heartbeat
}

// connected sends the join, if the server has not resumed the session.
func (t *hearthTalk) connected(g *granted) error {
	if g == nil {
		if err := t.join(t.rooms); err != nil {
			return err
		}
		return t.send([]byte(`{"event":"e","data":"joined"}`))
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	t.promise(ms(g.Heartbeat.Interval), ms(g.Heartbeat.Timeout))
	t.recovers = slices.Contains(g.Features, "recovery")
	if g.Resumed != nil {
		t.resumed = true
		t.ticket = "" // it works once
		return t.joinedRooms(*g.Resumed)
	}
	t.ticket = ""
	return t.join(t.rooms)
}

// join joins rooms, from their positions if the server recovers messages.
func (t *hearthTalk) join(rooms []string) error {
	type data struct {
		Rooms     []string            `json:"rooms"`
		Positions map[string]position `json:"positions,omitempty"`
	}
	d := data{Rooms: rooms}
	if t.recovers {
		d.Positions = t.positions
	}
	return t.sendJSON(struct {
		Event string `json:"event"`
		Data  data   `json:"data"`
		ID    string `json:"id"`
	}{"join", d, joinID})
}

// answer handles the answer to a join.
func (t *hearthTalk) answer(data json.RawMessage, id string) error {
	var a joinAnswer
	if err := json.Unmarshal(data, &a); err != nil {
		return fmt.Errorf("read the answer to a join: %w", err)
	}
	if id != joinID {
		t.violation("the answer to a join has id %q", id)
	}
	return t.joinedRooms(a)
}

// joinedRooms notes positions, losses and the number of recovered messages.
func (t *hearthTalk) joinedRooms(a joinAnswer) error {
	for _, r := range a.Rejected {
		return fmt.Errorf("join of %s rejected: %s", r.Room, r.Code)
	}
	var recovered []pending
	for _, j := range a.Joined {
		if t.ledgers[j.Room] == nil {
			continue // a default room
		}
		recovered = append(recovered, pending{j.Room, j.Recovered})
		before, known := t.positions[j.Room]
		switch {
		case j.Unrecovered != "":
			t.report(j.Room)
			t.unrecovered(j.Unrecovered)
		case known && j.position != (position{}) && (j.Epoch != before.Epoch || j.Offset < before.Offset):
			t.violation("%s: joined at %d %s from %d %s", j.Room, j.Offset, j.Epoch, before.Offset, before.Epoch)
		}
		if j.position != (position{}) && (!known || j.Unrecovered != "") {
			t.positions[j.Room] = j.position
		}
	}
	missing := t.missing(a)
	t.session.join(t.joined || len(missing) == 0, recovered...)
	if t.joined {
		return nil
	}
	return t.join(missing) // the client lost its connection before it had joined them
}

// missing returns the rooms of the client that are not in an answer to a join.
func (t *hearthTalk) missing(a joinAnswer) []string {
	missing := slices.Clone(t.rooms)
	for _, j := range a.Joined {
		missing = slices.DeleteFunc(missing, func(room string) bool { return room == j.Room })
	}
	return missing
}

// gap notes that messages of rooms are missing, and joins rooms again that the server has taken the
// client out of.
func (t *hearthTalk) gap(m hearthMessage) error {
	var data struct{ Rooms []string }
	if err := json.Unmarshal(m.Data, &data); err != nil {
		return fmt.Errorf("read %s: %w", m.Event, err)
	}
	if m.Event == "hearth:interrupted" {
		t.interruptions.Add(int64(len(data.Rooms)))
		return t.join(data.Rooms)
	}
	for _, room := range data.Rooms {
		t.report(room)
	}
	return nil
}

// failed handles an error of the server. If it rejects the ticket, the client authenticates.
func (t *hearthTalk) failed(data json.RawMessage) error {
	var e struct{ Message, Code string }
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("read an error: %w", err)
	}
	if e.Code == "ticket_rejected" {
		t.rejected.Add(1)
		t.ticket = ""
		return t.authenticate("")
	}
	return fmt.Errorf("error of the server: %s %s", e.Message, e.Code)
}
