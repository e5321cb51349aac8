package session

import (
	"context"

	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// History has the rooms with history, and recovers what clients have missed. history.Rooms
// implements it.
type History interface {
	// Has reports whether the room has history.
	Has(room string) bool
	// Join reads what a client wants of rooms, and calls join with the results at a moment when no
	// message of these rooms is being sent.
	Join(ctx context.Context, limits history.Limits, requests []history.Request, join func([]history.Result))
}

// Interrupt takes a client out of a room because messages of the room are missing, and tells it. It
// returns false if the client is not in the room. The caller releases the channel of the room.
// Interrupt never blocks.
func Interrupt(m *hub.Member, room string) bool {
	s := Of(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.env.Hub.Leave(&s.member, room) {
		return false
	}
	s.changedLocked(room, false)
	s.member.Notice(ws.NewMessage(protocol.AppendInterrupted(nil, []string{room}, protocol.InterruptedGap)))
	return true
}
