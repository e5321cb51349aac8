package memory

import (
	"context"
	"fmt"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// KeepsHistory implements broker.History.
func (n *Broker) KeepsHistory() bool { return len(n.bus.logs.rules) > 0 }

// HasHistory implements broker.History.
func (n *Broker) HasHistory(room string) bool { return n.bus.logs.rule(room) != nil }

// ReadHistory implements broker.History. It never waits. It also works before Start.
func (n *Broker) ReadHistory(ctx context.Context, requests ...broker.HistoryRequest) ([]broker.HistoryPart, error) {
	if err := n.checkHistory(ctx, "read history"); err != nil {
		return nil, err
	}
	parts := make([]broker.HistoryPart, len(requests))
	for i, r := range requests {
		rule := n.bus.logs.rule(r.Room)
		if rule == nil {
			parts[i] = broker.HistoryPart{Unrecovered: protocol.UnrecoveredNoHistory}
			continue
		}
		parts[i] = n.bus.logs.read(rule, r)
	}
	return parts, nil
}

// RemoveHistory implements broker.History. It never waits. It also works before Start.
func (n *Broker) RemoveHistory(ctx context.Context, room string) error {
	if err := n.checkHistory(ctx, "remove history"); err != nil {
		return err
	}
	if n.bus.logs.rule(room) == nil {
		return broker.ErrNoHistory
	}
	n.bus.logs.remove(room)
	return nil
}

func (n *Broker) checkHistory(ctx context.Context, operation string) error {
	if n.phase.Load() == closed {
		return broker.ErrClosed
	}
	if err := n.bus.logs.err; err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	return nil
}

// holdRooms keeps the logs of the rooms with those channels.
func (n *Broker) holdRooms(channels []string) {
	l := n.bus.logs
	if len(l.rules) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.phase.Load() == closed {
		return
	}
	for _, channel := range channels {
		t, room, ok := protocol.ParseChannel(channel)
		if !ok || t != protocol.TypeRoom || l.rule(room) == nil {
			continue
		}
		if n.held == nil {
			n.held = make(map[string]int)
		}
		if n.held[room]++; n.held[room] == 1 {
			l.holdLocked(room)
		}
	}
}

// releaseRooms undoes one holdRooms of each channel.
func (n *Broker) releaseRooms(channels []string) {
	l := n.bus.logs
	if len(l.rules) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, channel := range channels {
		t, room, ok := protocol.ParseChannel(channel)
		if !ok || t != protocol.TypeRoom || n.held[room] == 0 {
			continue
		}
		if n.held[room]--; n.held[room] == 0 {
			delete(n.held, room)
			l.releaseLocked(room)
		}
	}
}

// releaseAll undoes all calls of holdRooms. There are none after it.
func (n *Broker) releaseAll() {
	l := n.bus.logs
	l.mu.Lock()
	defer l.mu.Unlock()
	for room := range n.held {
		l.releaseLocked(room)
	}
	n.held = nil
}
