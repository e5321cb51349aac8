package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/app/jwtauth"
	"github.com/hearthws/hearth/internal/app/rules"
	"github.com/hearthws/hearth/protocol"
)

// The events that clients may send outside development mode. docs/server.md specifies them.
const (
	eventPublish   = "publish"
	eventPublished = "published"
	eventHistory   = "history"
	eventPresence  = "presence"
	eventGrant     = "grant"
)

const (
	defaultHistoryLimit = 20
	maxHistoryLimit     = 100
	maxHistoryBytes     = 256 << 10 // of data in one answer

	queryTimeout = 2 * time.Second // for questions to the broker or to other servers
	maxQueries   = 16              // of all clients at a time
)

var (
	errForbidden   = &hearth.ClientError{Code: protocol.RejectForbidden, Message: "Not allowed in this room"}
	errInvalidRoom = &hearth.ClientError{Code: protocol.RejectInvalid, Message: "Invalid room"}
	errBusy        = &hearth.ClientError{Code: protocol.CodeBusy, Message: "Try again later"}
)

// handle sets the handlers of the service.
func (s *service) handle() {
	hearth.HandleRequest(s.srv, eventPublish, s.publish)
	hearth.HandleRequest(s.srv, eventHistory, s.history)
	hearth.HandleRequest(s.srv, eventPresence, s.presence)
	hearth.HandleRequest(s.srv, eventGrant, s.grant)
}

// allow returns an error for the client unless one of the rules that which selects matches the
// room.
func (s *service) allow(c *connection, room string, which func(*access) *rules.Rules) error {
	if protocol.CheckRoom(room) != nil {
		return errInvalidRoom
	}
	if !which(s.access.Load()).Allow(c.Metadata().identity.Load(), room) {
		s.limited.Debug("rejected a request of a client: no rule allows it", "room", room, "user", c.UserID(), "client", c.ID())
		return errForbidden
	}
	return nil
}

type publishRequest struct {
	Room string          `json:"room"`
	Data json.RawMessage `json:"data"`
}

// A publication is the data of the event that the members of the room receive. The server writes
// who sent it, so that clients need not trust the data for that.
type publication struct {
	Room string          `json:"room"`
	From sender          `json:"from"`
	Data json.RawMessage `json:"data"`
}

// publish sends the data of a client to the members of a room.
func (s *service) publish(ctx context.Context, c *connection, req publishRequest) (hearth.NoData, error) {
	if err := s.allow(c, req.Room, func(a *access) *rules.Rules { return &a.rules.Publish }); err != nil {
		return hearth.NoData{}, err
	}
	if req.Data == nil {
		req.Data = json.RawMessage("null")
	}
	err := s.srv.Send(ctx, hearth.ToRoom(req.Room), eventPublished, publication{req.Room, sender{c.UserID(), c.ID()}, req.Data})
	switch {
	case errors.Is(err, hearth.ErrQueueFull), errors.Is(err, broker.ErrQueueFull), errors.Is(err, broker.ErrDown):
		s.limited.Warn("a message of a client did not reach all members of the room", "user", c.UserID(), "client", c.ID(), "error", err)
		return hearth.NoData{}, errBusy
	case err != nil:
		return hearth.NoData{}, fmt.Errorf("publish: %w", err)
	}
	return hearth.NoData{}, nil
}

// query runs a question to the broker or to other servers. It bounds their number and time.
func (s *service) query(ctx context.Context, run func(ctx context.Context) error) error {
	select {
	case s.queries <- struct{}{}:
	default:
		return errBusy
	}
	defer func() { <-s.queries }()
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return run(ctx)
}

type presenceRequest struct {
	Room string `json:"room"`
}

type presenceReply struct {
	Room    string `json:"room"`
	Clients int    `json:"clients"`
	More    bool   `json:"more"` // a server did not answer in time: there may be more
}

// presence returns the number of members of a room on all servers.
func (s *service) presence(ctx context.Context, c *connection, req presenceRequest) (presenceReply, error) {
	reply := presenceReply{Room: req.Room}
	if err := s.allow(c, req.Room, func(a *access) *rules.Rules { return &a.rules.Presence }); err != nil {
		return reply, err
	}
	return reply, s.query(ctx, func(ctx context.Context) error {
		n, err := s.srv.Count(ctx, hearth.ToRoom(req.Room))
		reply.Clients, reply.More = max(n, s.srv.Local().Count(hearth.ToRoom(req.Room))), err != nil
		return nil
	})
}

type historyRequest struct {
	Room  string          `json:"room"`
	After hearth.Position `json:"after"`
	Limit *int            `json:"limit"`
}

type historyReply struct {
	Room string `json:"room"`
	hearth.Position
	Messages    []historyMessage `json:"messages"`
	Unrecovered bool             `json:"unrecovered,omitempty"`
}

type historyMessage struct {
	hearth.Position
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// history returns messages of a room, without joining it.
func (s *service) history(ctx context.Context, c *connection, req historyRequest) (historyReply, error) {
	reply := historyReply{Room: req.Room, Messages: []historyMessage{}}
	if err := s.allow(c, req.Room, func(a *access) *rules.Rules { return &a.rules.History }); err != nil {
		return reply, err
	}
	limit := defaultHistoryLimit
	if req.Limit != nil {
		limit = *req.Limit
	}
	if limit < 1 || limit > maxHistoryLimit {
		return reply, &hearth.ClientError{Code: protocol.RejectInvalid, Message: fmt.Sprintf("limit can be 1 to %d", maxHistoryLimit)}
	}
	return reply, s.query(ctx, func(ctx context.Context) error {
		h, err := s.srv.History(ctx, req.Room, req.After, limit)
		switch {
		case errors.Is(err, hearth.ErrNoHistory):
			return &hearth.ClientError{Code: protocol.UnrecoveredNoHistory, Message: "The room has no history"}
		case errors.Is(err, hearth.ErrUnrecovered):
			reply.Unrecovered = true
		case errors.Is(err, broker.ErrDown), errors.Is(err, context.DeadlineExceeded):
			return errBusy
		case err != nil:
			return fmt.Errorf("read the history: %w", err)
		}
		reply.Position = h.Position
		reply.Messages = historyMessages(h.Messages, c.ID(), req.After == hearth.Position{})
		return nil
	})
}

// historyMessages returns the messages that were sent to a client, as far as they fit into an
// answer: the newest ones, or the oldest.
func historyMessages(all []hearth.HistoryMessage, client string, newest bool) []historyMessage {
	messages, size := []historyMessage{}, 0
	if newest {
		all = slices.Clone(all)
		slices.Reverse(all)
	}
	for _, m := range all {
		if size += len(m.Data); size > maxHistoryBytes {
			break
		}
		if !slices.Contains(m.Exclude, client) {
			messages = append(messages, historyMessage{m.Position, m.Event, m.Data})
		}
	}
	if newest {
		slices.Reverse(messages)
	}
	return messages
}

type grantRequest struct {
	Grant string `json:"grant"`
}

type grantReply struct {
	Room string `json:"room"`
}

// grant makes the client join the room of a grant.
func (s *service) grant(ctx context.Context, c *connection, req grantRequest) (grantReply, error) {
	grants := s.access.Load().grants
	if grants == nil {
		return grantReply{}, errForbidden
	}
	room, err := grants.Verify(req.Grant, c.UserID())
	reason := jwtauth.ReasonOf(err)
	s.counts.grants.WithLabelValues(reason.String()).Inc()
	if err != nil {
		s.limited.Info("rejected a grant", "reason", reason.String(), "error", err, "user", c.UserID(), "client", c.ID())
		return grantReply{}, errForbidden
	}
	err = c.Join(ctx, room)
	if errors.Is(err, hearth.ErrTooManyRooms) {
		return grantReply{}, &hearth.ClientError{Code: protocol.RejectLimit, Message: "Too many rooms"}
	}
	return grantReply{room}, err
}
