package hearth

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// HistoryRule selects rooms whose messages are kept for clients that were away. The rules are part
// of the configuration of the broker: redis.Config.History, or memory.Config.History for a single
// server.
type HistoryRule = broker.HistoryRule

// Position is the place of a message in the history of its room.
type Position = protocol.Position

// ErrNoHistory means that no HistoryRule selects the room.
var ErrNoHistory = broker.ErrNoHistory

// ErrUnrecovered means that the history does not have all messages after a position: some are too
// old, the position is of a removed history, or there are more than the limit.
var ErrUnrecovered = broker.ErrUnrecovered

// History is a part of the history of a room.
type History struct {
	// Position is the newest position of the room. Its Offset is 0 if no message was sent yet.
	Position Position

	// Messages are in the order in which they were sent.
	Messages []HistoryMessage
}

// HistoryMessage is a message in the history of a room.
type HistoryMessage struct {
	Position Position        // its place
	Event    string          // as it was sent
	Data     json.RawMessage // nil if it was sent without data
	Exclude  []string        // the ids of the clients that did not get it
}

// maxHistoryRead is the largest limit of Server.History.
const maxHistoryRead = 10_000

// History returns the messages of a room after a position, at most limit (1 to 10,000), oldest
// first. With the zero Position it returns the newest messages. It works on every server, also on
// those without members of the room.
//
// It waits for the broker until ctx is done. Errors: ErrNoHistory, ErrUnrecovered (History.Position
// is set, so the caller can continue from there), ErrNotRunning, or that of the broker.
func (s *Server[A, M]) History(ctx context.Context, room string, after Position, limit int) (History, error) {
	if limit < 1 || limit > maxHistoryRead {
		return History{}, fmt.Errorf("hearth: history of %.64q: limit is %d; it can be 1 to %d", room, limit, maxHistoryRead)
	}
	part, err := s.node.ReadHistory(ctx, broker.HistoryRequest{Room: room, After: after, Limit: limit})
	h := History{Position: part.Position}
	for _, m := range part.Messages {
		h.Messages = append(h.Messages, HistoryMessage{Position: m.Position, Event: m.Event, Data: m.Data, Exclude: m.Exclude})
	}
	if err != nil {
		return h, fmt.Errorf("hearth: history of %.64q: %w", room, err)
	}
	return h, nil
}

// RemoveHistory removes the history of a room, for example because a user has asked for it. Clients
// that are away cannot recover its messages any more, and are told so when they return. It waits
// for the broker until ctx is done. Errors: ErrNoHistory, ErrNotRunning, or that of the broker.
func (s *Server[A, M]) RemoveHistory(ctx context.Context, room string) error {
	if err := s.node.RemoveHistory(ctx, room); err != nil {
		return fmt.Errorf("hearth: remove the history of %.64q: %w", room, err)
	}
	return nil
}
