package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// A server keeps up to 16,384 channels for a while after the last client has left them, and has
	// those of its clients.
	mostChannels = 20_000

	mostSlowdown = 10 // times
	mostP99      = 50 // ms
)

var errEnded = errors.New("the server closed the connection")

// churn measures how rooms that are joined and left, with Redis, affect other clients.
func churn(ctx context.Context, l *lab) ([]figure, error) {
	const (
		attackers = 20
		rooms     = 50 // in one join
		ahead     = 8  // joins that an attacker sends before the first is done
		length    = 5 * time.Second
		settle    = time.Second
	)
	r, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	s, err := l.serve(ctx, "--redis", r.URL())
	if err != nil {
		return nil, err
	}
	before, err := arrivals(ctx, s, time.Second)
	if err != nil {
		return nil, err
	}
	var named, joined atomic.Int64
	sw := start(ctx, attackers, func(ctx context.Context, number int) {
		end := time.Now().Add(length)
		again(ctx, func(ctx context.Context) error {
			c, err := connect(ctx, attacker, s.addr)
			if err != nil {
				return err
			}
			// If attackers filled the buffers of their sockets, they would compete with the
			// measured client for the processors.
			under := make(chan struct{}, ahead)
			ended := make(chan struct{})
			go func() { // ends with the connection
				defer close(ended)
				c.collect(func(e envelope) {
					if e.Event == "rejected" {
						<-under
						joined.Add(rooms)
					}
				})
			}()
			for time.Now().Before(end) {
				select {
				case under <- struct{}{}:
				case <-ended:
					return errEnded
				}
				var names []string
				for range rooms {
					names = append(names, fmt.Sprintf(`"churn %d"`, named.Add(1)))
				}
				list := strings.Join(names, ",")
				for _, text := range []string{
					`{"event":"join","data":{"rooms":[` + list + `]}}`,
					`{"event":"leave","data":{"rooms":[` + list + `]}}`,
					`{"event":"done"}`, // which the server answers with rejected
				} {
					if err := c.send(text); err != nil {
						return err
					}
				}
			}
			<-ctx.Done()
			return ctx.Err()
		})
	})
	defer sw.stop()
	during, err := arrivals(ctx, s, length)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, settle); err != nil {
		return nil, err
	}
	channels, err := subscribed(ctx, r.Addr())
	if err != nil {
		return nil, err
	}
	slowdown := 0.0
	if p50 := before.percentile(50); p50 > 0 {
		slowdown = during.percentile(50) / p50
	}
	return []figure{
		{name: "channels subscribed afterwards", value: float64(channels), target: atMost(mostChannels),
			note: fmt.Sprintf("%d rooms were joined and left", joined.Load())},
		{name: "connect and authenticate of others, p50", value: during.percentile(50), unit: "ms", typical: true,
			note: fmt.Sprintf("alone: %s ms; p99 %s ms", number(before.percentile(50)), number(during.percentile(99)))},
		{name: "the same, times as long as alone", value: slowdown, target: atMost(mostSlowdown), typical: true},
	}, nil
}

// arrivals measures how long clients take to connect and authenticate, one at a time.
func arrivals(ctx context.Context, s *server, length time.Duration) (samples, error) {
	var took samples
	for end := time.Now().Add(length); time.Now().Before(end); {
		begun := time.Now()
		c, err := connect(ctx, honest, s.addr)
		if err != nil {
			return took, err
		}
		took = append(took, time.Since(begun))
		c.close()
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return took, err
		}
	}
	return took, nil
}

// subscribed returns the number of channels that have a subscriber.
func subscribed(ctx context.Context, addr string) (int, error) {
	reply, err := command(ctx, addr, "INFO", "stats")
	if err != nil {
		return 0, err
	}
	text, err := reply.Text()
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(text, "pubsub_channels:")
	if !found {
		return 0, fmt.Errorf("redis does not report the number of its channels")
	}
	count, _, _ := strings.Cut(rest, "\r")
	return strconv.Atoi(count)
}

// flood measures how clients that send invalid messages as fast as they can affect other clients.
func flood(ctx context.Context, l *lab) ([]figure, error) {
	const (
		attackers = 10
		length    = 4 * time.Second
	)
	s, err := l.serve(ctx)
	if err != nil {
		return nil, err
	}
	other, err := newObserver(ctx, s)
	if err != nil {
		return nil, err
	}
	burst := bytes.Repeat(frame(final|opText, []byte("{")), writeSize/7)
	sw := start(ctx, attackers, func(ctx context.Context, _ int) {
		again(ctx, func(ctx context.Context) error {
			c, err := connect(ctx, attacker, s.addr)
			if err != nil {
				return err
			}
			go c.ignore() // ends with the connection
			for err == nil {
				err = c.write(burst)
			}
			return err
		})
	})
	during, err := other.observe(ctx, length)
	sw.stop()
	if err != nil {
		return nil, err
	}
	return []figure{
		{name: "another client's echo, p99", value: during.echo.percentile(99), unit: "ms", target: atMost(mostP99), typical: true},
		{name: "another client's echo, p50", value: during.echo.percentile(50), unit: "ms", typical: true},
	}, nil
}
