package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// An ownRoom is the room that is named by a client's id, whose messages are for that client only.
// The attacker, a client of another node, tries to join it.
type ownRoom struct {
	lab              *lab
	url              string
	nodes            []*server // the attacker's and the victim's
	victim, attacker *client
	got, stolen      atomic.Int64
	stop             func()
}

func newOwnRoom(ctx context.Context, l *lab, url string, options ...string) (*ownRoom, error) {
	nodes, err := l.nodes(ctx, 2, url, options...)
	if err != nil {
		return nil, err
	}
	b := &ownRoom{lab: l, url: url, nodes: nodes}
	if b.attacker, err = connect(ctx, attacker, nodes[0].addr); err != nil {
		return nil, err
	}
	if b.victim, err = connect(ctx, honest, nodes[1].addr); err != nil {
		return nil, err
	}
	readers := start(ctx, 2, func(_ context.Context, number int) {
		c, n := b.victim, &b.got
		if number == 1 {
			c, n = b.attacker, &b.stolen
		}
		c.collect(func(e envelope) {
			if e.Event == "private" {
				n.Add(1)
			}
		})
	})
	b.stop = func() { b.victim.close(); b.attacker.close(); readers.stop() }
	return b, nil
}

func (b *ownRoom) join() error {
	return b.attacker.send(`{"event":"join","data":{"rooms":["` + b.victim.id + `"]}}`)
}

// keepJoining repeats the join while f runs.
func (b *ownRoom) keepJoining(ctx context.Context, what func() error) error {
	sw := start(ctx, 1, func(ctx context.Context, _ int) {
		for b.join() == nil && sleep(ctx, 500*time.Millisecond) == nil {
		}
	})
	defer sw.stop()
	return what()
}

// result waits until messages reach the victim again, sends it a few more, and counts those that
// the attacker received.
func (b *ownRoom) result(ctx context.Context) (figure, error) {
	const (
		longest = 20 * time.Second        // until the first message
		recover = 1500 * time.Millisecond // after it
		more    = 3
	)
	sent := 0
	send := func() error {
		sent++
		return b.lab.emit(ctx, b.url, "room", b.victim.id, "private", `{"n":1}`)
	}
	for end := time.Now().Add(longest); b.got.Load() == 0; {
		if time.Now().After(end) {
			return figure{}, fmt.Errorf("no message reaches the victim %v after the fault", longest)
		}
		if err := errors.Join(send(), sleep(ctx, 200*time.Millisecond)); err != nil {
			return figure{}, err
		}
	}
	if err := sleep(ctx, recover); err != nil {
		return figure{}, err
	}
	for range more {
		if err := send(); err != nil {
			return figure{}, err
		}
	}
	if err := sleep(ctx, time.Second); err != nil {
		return figure{}, err
	}
	b.stop()
	return figure{name: "direct messages that an attacker got", value: float64(b.stolen.Load()), target: atMost(0),
		note: fmt.Sprintf("sent %d, the last %d at least %v after the recovery", sent, more, recover)}, nil
}

// frozenNode measures whether a client can read the messages of another client whose node does not
// answer.
func frozenNode(ctx context.Context, l *lab) ([]figure, error) {
	r, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	b, err := newOwnRoom(ctx, l, r.URL())
	if err != nil {
		return nil, err
	}
	err = b.keepJoining(ctx, func() error { return freeze(ctx, b.nodes[1].Process, 5*time.Second) })
	if err != nil {
		return nil, err
	}
	f, err := b.result(ctx)
	return []figure{f}, err
}

// frozenRedis does the same while Redis does not answer, and counts the messages that are lost
// meanwhile.
func frozenRedis(ctx context.Context, l *lab) ([]figure, error) {
	r, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	b, err := newOwnRoom(ctx, l, r.URL(), "--resync")
	if err != nil {
		return nil, err
	}
	lost, err := underStream(ctx, l, r.URL(), b.nodes[:1], 12*time.Second, func() error {
		return b.keepJoining(ctx, func() error { return freeze(ctx, r.Process, 8*time.Second) })
	})
	if err != nil {
		return nil, err
	}
	f, err := b.result(ctx)
	return []figure{f, lost}, err
}

// uuid returns a random name of the form of a UUID.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0F|0x40, b[8]&0x3F|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// crash measures how much longer a join takes after another node was killed, if the room is named
// by a UUID.
func crash(ctx context.Context, l *lab) ([]figure, error) {
	const (
		times   = 4
		longest = 500 // ms
	)
	r, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	nodes, err := l.nodes(ctx, 2, r.URL())
	if err != nil {
		return nil, err
	}
	c, err := connect(ctx, honest, nodes[0].addr)
	if err != nil {
		return nil, err
	}
	join := func(number int, room string) (time.Duration, error) {
		begun := time.Now()
		if err := c.send(`{"event":"join","data":{"rooms":["` + room + `"]}}`); err != nil {
			return 0, err
		}
		_, err := c.echo(number) // answered after the join
		return time.Since(begun), err
	}
	extra := func(number int) (time.Duration, error) {
		named, err := join(2*number, fmt.Sprint("document ", number))
		if err != nil {
			return 0, err
		}
		uuid, err := join(2*number+1, uuid())
		return uuid - named, err
	}
	before, err := extra(0)
	if err != nil {
		return nil, err
	}
	nodes[1].Kill()
	worst := time.Duration(0)
	for i := range times {
		d, err := extra(i + 1)
		if err != nil {
			return nil, err
		}
		worst = max(worst, d)
	}
	return []figure{{name: "extra time of a UUID room's join, worst", value: ms(worst), unit: "ms", target: atMost(longest),
		note: fmt.Sprintf("of %d; before the crash %s ms", times, number(ms(before)))}}, nil
}
