package node

import (
	"context"
	"errors"
	"log/slog"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/sparse"
)

// An interest is what the sessions tell the broker (session.Interest).
type interest struct {
	broker      broker.Broker
	log         *slog.Logger
	unconfirmed *sparse.Lines
}

// Hold logs what could not be confirmed: one line for all clients that come and join meanwhile, and none while the broker is
// down, which it has said itself, and Health says.
func (i *interest) Hold(ctx context.Context, channels ...string) error {
	err := i.broker.Hold(ctx, channels...)
	if err == nil || errors.Is(err, broker.ErrDown) {
		return err
	}
	if skipped, due := i.unconfirmed.Due(); due {
		i.log.Warn("broker has not confirmed channels of clients", "channels", len(channels), "error", err, "others", skipped)
	}
	return err
}

func (i *interest) Release(channels ...string) { i.broker.Release(channels...) }
