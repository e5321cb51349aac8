package main

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

const (
	// The bytes of one write of a client: as many as a server may accept with one read.
	writeSize = 64 << 10

	rejectedPause = 5 * time.Millisecond // before an attacker tries again

	mostPing   = 10  // ms
	mostMemory = 250 // MiB
)

// inflateAuthenticated measures the effect on other clients of messages that inflate to 128 KiB.
func inflateAuthenticated(ctx context.Context, l *lab) ([]figure, error) {
	return inflate(ctx, l, 131_021, true)
}

// inflateEarly does the same with clients that do not authenticate and that connect again as soon
// as they are closed.
func inflateEarly(ctx context.Context, l *lab) ([]figure, error) {
	return inflate(ctx, l, 16_000, false)
}

func inflate(ctx context.Context, l *lab, size int, authenticated bool) ([]figure, error) {
	const (
		attackers = 8
		pause     = 256 * time.Millisecond // between two writes of one client: 2 MB/s in total
		length    = 4 * time.Second
	)
	s, err := l.serve(ctx, "--compression")
	if err != nil {
		return nil, err
	}
	other, err := newObserver(ctx, s)
	if err != nil {
		return nil, err
	}
	alone, err := other.observe(ctx, 500*time.Millisecond)
	if err != nil {
		return nil, err
	}
	big, err := inflating(size)
	if err != nil {
		return nil, err
	}
	burst := bytes.Repeat(big, writeSize/len(big))
	once := func(ctx context.Context) error { // a rejected client tries again at once
		c, err := dial(ctx, attacker, s.addr, deflateHeader)
		if err == nil {
			err = c.write(burst)
		}
		if err == nil {
			c.ignore() // until the server closes it
		}
		return nil
	}
	if authenticated {
		once = func(ctx context.Context) error {
			c, err := connect(ctx, attacker, s.addr, deflateHeader)
			if err != nil {
				return err
			}
			go c.ignore() // ends with ctx
			for err == nil {
				if err = c.write(burst); err == nil {
					err = sleep(ctx, pause)
				}
			}
			return err
		}
	}
	sw := start(ctx, attackers, func(ctx context.Context, number int) {
		_ = sleep(ctx, time.Duration(number)*pause/attackers)
		again(ctx, once)
	})
	during, err := other.observe(ctx, length)
	sw.stop()
	if err != nil {
		return nil, err
	}
	note := fmt.Sprintf("%d bytes inflate to %d; alone: ping %s ms, echo %s ms", len(big), size, number(alone.ping.percentile(50)),
		number(alone.echo.percentile(50)))
	return []figure{
		{name: "another client's ping, p50", value: during.ping.percentile(50), unit: "ms", target: atMost(mostPing), typical: true, note: note},
		{name: "another client's echo, p50", value: during.echo.percentile(50), unit: "ms", target: atMost(mostPing), typical: true},
		{name: "another client's echo, p99", value: during.echo.percentile(99), unit: "ms", typical: true},
		{name: "memory, peak", value: s.peak(), unit: "MiB", target: atMost(mostMemory)},
	}, nil
}

// inflateQueue measures the memory of messages that wait for callbacks. A callback that asks all
// nodes waits for a stopped one.
func inflateQueue(ctx context.Context, l *lab) ([]figure, error) {
	const (
		attackers = 40
		slow      = 3 // messages that take a second each
		messages  = 369
		length    = 6 * time.Second
	)
	r, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	nodes, err := l.nodes(ctx, 2, r.URL(), "--compression")
	if err != nil {
		return nil, err
	}
	big, err := inflating(131_021)
	if err != nil {
		return nil, err
	}
	var write []byte
	for range slow {
		write = append(write, frame(final|opText, []byte(`{"event":"who","data":{}}`))...)
	}
	write = append(write, bytes.Repeat(big, messages)...)
	var clients []*client
	for range attackers {
		c, err := connect(ctx, attacker, nodes[0].addr, deflateHeader)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
	}
	other, err := newObserver(ctx, nodes[0])
	if err != nil {
		return nil, err
	}
	before := nodes[0].peak()
	frozen := start(ctx, 1, func(ctx context.Context, _ int) { _ = freeze(ctx, nodes[1].Process, length) })
	sw := start(ctx, attackers, func(ctx context.Context, number int) {
		c := clients[number]
		if err := c.write(write); err == nil {
			c.ignore() // ends when attempt closes the connection
		}
	})
	during, err := other.observe(ctx, length)
	frozen.stop()
	peak := nodes[0].peak()
	for _, c := range clients {
		c.close()
	}
	sw.stop()
	if err != nil {
		return nil, err
	}
	return []figure{
		{name: "memory, peak", value: peak, unit: "MiB", target: atMost(mostMemory),
			note: fmt.Sprintf("%s MiB before; %d bytes sent", number(before), attackers*len(write))},
		{name: "another client's echo, p99", value: during.echo.percentile(99), unit: "ms", typical: true},
	}, nil
}
