package node

import (
	"context"
	"errors"
	"log/slog"

	"github.com/hearthws/hearth/broker"
)

// An interest is what the sessions tell the broker (session.Interest).
type interest struct {
	broker broker.Broker
	log    *slog.Logger
}

// Hold logs an error, unless the broker is down: it logs that itself, and Health reports it.
func (i *interest) Hold(ctx context.Context, channels ...string) error {
	err := i.broker.Hold(ctx, channels...)
	if err == nil || errors.Is(err, broker.ErrDown) {
		return err
	}
	i.log.Warn("broker has not confirmed channels of clients", "channels", len(channels), "error", err)
	return err
}

func (i *interest) Release(channels ...string) { i.broker.Release(channels...) }
