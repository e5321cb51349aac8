package session

import (
	"context"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/protocol"
)

// Interest tells the broker which channels this node needs.
type Interest interface {
	// Hold holds the channels. It returns nil when every message that is published to them from
	// then on will arrive. If the broker cannot confirm that before ctx is done, Hold reports the
	// problem and returns an error. The channels are held in either case.
	Hold(ctx context.Context, channels ...string) error
	// Release undoes one Hold of each channel.
	Release(channels ...string)
}

// hold makes messages that other nodes publish to the channels arrive at this node. If the broker
// cannot confirm that yet, the client is not kept out: this node can still serve it, and the broker
// reports what it misses.
func (e *Env) hold(ctx context.Context, channels []string) {
	if len(channels) > 0 {
		_ = e.Interest.Hold(ctx, channels...) // Hold logs errors, with a limit on the lines
	}
}

// release undoes hold, whether the broker has confirmed it or not.
func (e *Env) release(channels []string) {
	if len(channels) > 0 {
		e.Interest.Release(channels...)
	}
}

// clientChannels returns the channels of the client itself, of its user if it has one, and of the
// rooms. The channel of its own room is always one of them. Without Interest there are none.
func (e *Env) clientChannels(m *hub.Member, user string, rooms []string) []string {
	if e.Interest == nil {
		return nil
	}
	id := m.ID()
	channels := []string{protocol.ClientChannel(id), protocol.RoomChannel(id)}
	if user != "" {
		channels = append(channels, protocol.UserChannel(user))
	}
	return append(channels, e.roomChannels(m, rooms...)...)
}

// roomChannels returns the channels of the rooms, without that of the client's own room, which is
// held as long as the client is connected.
func (e *Env) roomChannels(m *hub.Member, rooms ...string) (channels []string) {
	if e.Interest == nil {
		return nil
	}
	for _, room := range rooms {
		if !isOwnRoom(m, room) {
			channels = append(channels, protocol.RoomChannel(room))
		}
	}
	return channels
}
