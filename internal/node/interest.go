package node

import (
	"context"
	"errors"
	"log/slog"

	"github.com/hearthws/hearth/broker"
)

// interest passes the channels of the sessions to the broker. It implements session.Interest.
type interest struct {
	broker broker.Broker
	log    *slog.Logger
}

// Hold subscribes to the channels. It logs an error, unless the broker is down: the broker logs
// that itself, and Health reports it.
func (i *interest) Hold(ctx context.Context, channels ...string) error {
	err := i.broker.Hold(ctx, channels...)
	if err == nil || errors.Is(err, broker.ErrDown) {
		return err
	}
	i.log.Warn("broker did not confirm the channels of clients", "channels", len(channels), "error", err)
	return err
}

// Release ends what Hold began.
func (i *interest) Release(channels ...string) { i.broker.Release(channels...) }
