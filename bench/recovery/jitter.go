package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A load is the size of a measure.
type load struct {
	clients int
	rooms   int
	each    int           // rooms of a client
	rate    float64       // messages per second in each room
	length  time.Duration // for which messages are published
	every   time.Duration // the mean time between two cuts of a client
	away    time.Duration // how long it stays away then

	operations int // of a server whose costs are measured

	before    time.Duration // before something happens to a node
	drain     time.Duration // of a node that is restarted
	heartbeat time.Duration // of a node that is stopped
}

// roomNames returns the names of the rooms. A server with history keeps that of these rooms.
func (l load) roomNames() []string {
	rooms := make([]string, l.rooms)
	for i := range rooms {
		rooms[i] = fmt.Sprintf("kept:%d", i)
	}
	return rooms
}

// jitter cuts the clients of one node again and again, while messages are published.
func jitter(ctx context.Context, l *lab, e entrant, size load) (r result, err error) {
	n, err := e.start(ctx, l, nodeOptions{})
	if err != nil {
		return r, err
	}
	p, err := e.publish(ctx, l, n)
	if err != nil {
		return r, err
	}
	defer p.close()
	rooms := size.roomNames()
	c := newCrowd(e.dialect, []string{n.addr}, size.clients, rooms, size.each)
	c.every, c.away, c.tickets = size.every, size.away, e.tickets
	c.cutting.Store(true)
	sent := 0
	var used time.Duration
	err = c.during(ctx, func(ctx context.Context) error {
		before, err := cpu(n.process)
		if err != nil {
			return err
		}
		if sent, err = publishTo(ctx, p, rooms, size.rate, size.length); err != nil {
			return err
		}
		if err := c.settle(ctx, sent); err != nil {
			return err
		}
		used, err = cpu(n.process)
		used -= before
		return err
	})
	if err != nil {
		return r, err
	}
	if !n.process.Alive() {
		return r, errors.New("the server has ended")
	}
	r = c.result(sent)
	c.addTickets(&r)
	r.add("CPU of the server", used.Seconds(), "s")
	r.returned = c.returned(func(a absence) bool { return true }, func(a absence) time.Time { return a.tried })
	if e.recovers {
		r.require("received", r.Tally.received(), atLeast, 100)
		r.requireOrder()
	}
	return r, nil
}
