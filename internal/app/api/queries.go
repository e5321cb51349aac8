package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/hearthws/hearth"
)

// MembersPage lists members of a room on one server.
type MembersPage struct {
	Server  string   `json:"server" doc:"id of the server"`
	Total   int      `json:"total" doc:"number of members on this server"`
	Members []Member `json:"members" nullable:"false" doc:"in no particular order"`
}

// Log is a part of the history of a room.
type Log struct {
	Position  Position `json:"position" doc:"the newest position of the room"`
	Recovered bool     `json:"recovered" doc:"whether messages has all messages after the given position"`
	Messages  []Logged `json:"messages" nullable:"false" doc:"oldest first"`
}

// Position is the place of a message in the history of its room.
type Position struct {
	Epoch  string `json:"epoch" doc:"name of the log; a new log has another one"`
	Offset uint64 `json:"offset" doc:"number of the message in the log, 1 for the first"`
}

// Logged is a message in the history of a room.
type Logged struct {
	Offset uint64          `json:"offset" doc:"its place"`
	Event  string          `json:"event" doc:"as it was sent"`
	Data   json.RawMessage `json:"data,omitempty" doc:"as it was sent"`
	Except []string        `json:"except,omitempty" nullable:"false" doc:"ids of the clients that did not get it"`
}

// Nodes lists servers.
type Nodes struct {
	Servers []Node `json:"servers" nullable:"false" doc:"the servers that share the broker, as far as this one knows; itself first"`
}

// Node is one server.
type Node struct {
	ID    string    `json:"id" doc:"id of the server"`
	Name  string    `json:"name" doc:"its name in logs"`
	Since time.Time `json:"since" doc:"when this server first heard of it"`
	Seen  time.Time `json:"seen" doc:"when this server last heard of it"`
}

type historyQuery struct {
	Room   string `query:"room" required:"true" doc:"name of the room"`
	Epoch  string `query:"epoch" doc:"with offset: the position after which messages begin; without both: the newest messages"`
	Offset uint64 `query:"offset" doc:"see epoch"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"largest number of messages"`
}

type membersQuery struct {
	Room  string `query:"room" required:"true" doc:"name of the room"`
	Limit int    `query:"limit" default:"100" minimum:"1" maximum:"10000" doc:"largest number of members"`
}

func (a *api) registerQueries() {
	register(a, Read, http.MethodGet, "/v1/count", "count", "Count clients", "Counts the clients of the target on all servers.",
		func(ctx context.Context, in *Target) (*counted, error) {
			t, err := in.target()
			if err != nil {
				return nil, err
			}
			return countedOf(a.Server.Count(ctx, t))
		})
	register(a, Read, http.MethodGet, "/v1/members", "members", "List members of a room on this server",
		"Lists the members of a room that are connected to this server. /v1/count counts those of all servers.", a.members)
	register(a, Read, http.MethodGet, "/v1/history", "history", "Read the history of a room",
		"Returns messages of a room with history. If recovered is false, some of the messages after the position are too old, "+
			"the position is of a removed log, or there are more than the limit: continue at position.", a.history)
	register(a, Manage, http.MethodDelete, "/v1/history", "removeHistory", "Remove the history of a room",
		"Removes the messages of a room with history.", func(ctx context.Context, in *struct {
			Room string `query:"room" required:"true" doc:"name of the room"`
		}) (*struct{}, error) {
			return nil, a.Server.RemoveHistory(ctx, in.Room)
		})
	register(a, Read, http.MethodGet, "/v1/servers", "servers", "List servers", "Lists the servers that share the broker.", a.nodes)
}

func (a *api) members(_ context.Context, in *membersQuery) (*struct{ Body MembersPage }, error) {
	if err := hearth.ToRoom(in.Room).Check(); err != nil {
		return nil, err
	}
	members, total := a.Members(in.Room, in.Limit)
	return &struct{ Body MembersPage }{MembersPage{Server: a.Server.ID(), Total: total, Members: members}}, nil
}

func (a *api) history(ctx context.Context, in *historyQuery) (*struct{ Body Log }, error) {
	h, err := a.Server.History(ctx, in.Room, hearth.Position{Epoch: in.Epoch, Offset: in.Offset}, in.Limit)
	unrecovered := errors.Is(err, hearth.ErrUnrecovered)
	if err != nil && !unrecovered {
		return nil, err
	}
	l := Log{Position: Position{h.Position.Epoch, h.Position.Offset}, Recovered: !unrecovered, Messages: []Logged{}}
	for _, m := range h.Messages {
		l.Messages = append(l.Messages, Logged{Offset: m.Position.Offset, Event: m.Event, Data: m.Data, Except: m.Exclude})
	}
	return &struct{ Body Log }{l}, nil
}

func (a *api) nodes(context.Context, *struct{}) (*struct{ Body Nodes }, error) {
	n := Nodes{Servers: []Node{}}
	for _, info := range a.Server.Nodes() {
		n.Servers = append(n.Servers, Node(info))
	}
	return &struct{ Body Nodes }{n}, nil
}
