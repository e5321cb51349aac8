package node

import (
	"context"
	"errors"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// interest passes the channels of the sessions to the broker, and to the rooms with history. It
// implements session.Interest.
type interest struct{ node *Node }

// Hold subscribes to the channels. It logs an error, unless the broker is down: the broker logs
// that itself, and Health reports it.
func (i *interest) Hold(ctx context.Context, channels ...string) error {
	err := i.node.cfg.Broker.Hold(ctx, channels...)
	if err != nil && !errors.Is(err, broker.ErrDown) {
		i.node.cfg.Log.Warn("broker did not confirm the channels of clients", "channels", len(channels), "error", err)
	}
	if i.node.history != nil {
		i.node.history.Hold(ctx, roomNames(channels)...)
	}
	return err
}

// Release ends what Hold began.
func (i *interest) Release(channels ...string) {
	i.node.cfg.Broker.Release(channels...)
	if i.node.history != nil {
		i.node.history.Release(roomNames(channels)...)
	}
}

// roomNames returns the rooms of those channels that belong to rooms.
func roomNames(channels []string) (rooms []string) {
	for _, channel := range channels {
		if t, name, ok := protocol.ParseChannel(channel); ok && t == protocol.TypeRoom {
			rooms = append(rooms, name)
		}
	}
	return rooms
}
