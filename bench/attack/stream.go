package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hearthws/hearth/bench/internal/process"
	"github.com/hearthws/hearth/bench/internal/redis"
)

// A stream is a sequence of numbered messages that hearth emit publishes. It is for one goroutine.
type stream struct {
	written []time.Time // when each message was last given to the emitter
	tried   int         // the first messages that the emitter reports as sent or tried
	failed  int         // of those, the messages reported as not sent
}

// A listener holds the messages of a stream that one client receives.
type listener struct {
	mu      sync.Mutex // guards the fields below
	got     map[int]bool
	resyncs []window
}

// A window is the time of a resync event: messages of this time may be missing.
type window struct {
	Since, Until time.Time
	Rooms        []string
}

const (
	streamRoom  = "ws-default"
	streamPause = 5 * time.Millisecond

	// The times of a resync are those of the node, and a message is published a little after it was
	// written.
	tolerance = 100 * time.Millisecond
)

// underStream publishes messages during a fault, and counts those that were neither delivered nor
// reported, summed over one client of each node.
func underStream(ctx context.Context, l *lab, url string, nodes []*server, length time.Duration, fault func() error) (figure, error) {
	var clients []*client
	for _, node := range nodes {
		c, err := connect(ctx, honest, node.addr)
		if err != nil {
			return figure{}, err
		}
		clients = append(clients, c)
	}
	listeners := make([]listener, len(nodes))
	readers := start(ctx, len(nodes), func(_ context.Context, number int) { clients[number].collect(listeners[number].take) })
	defer func() {
		for _, c := range clients {
			c.close()
		}
		readers.stop()
	}()
	var faultErr error
	breaker := start(ctx, 1, func(ctx context.Context, _ int) {
		if faultErr = sleep(ctx, time.Second); faultErr == nil {
			faultErr = fault()
		}
	})
	s := &stream{}
	err := s.publish(ctx, l, url, time.Now().Add(length))
	if err == nil {
		err = sleep(ctx, 2500*time.Millisecond) // a resync may be sent a second after the last one
	}
	breaker.stop()
	if err = errors.Join(err, faultErr); err != nil {
		return figure{}, err
	}
	return s.account(listeners)
}

// take records a message to the client.
func (l *listener) take(e envelope) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := parseNumber(e, "tick"); ok {
		if l.got == nil {
			l.got = map[int]bool{}
		}
		l.got[n] = true
		return
	}
	var w window
	if e.Event == "resync" && json.Unmarshal(e.Data, &w) == nil {
		l.resyncs = append(l.resyncs, w)
	}
}

// publish gives the emitter a message every few milliseconds. If the emitter ends with an error,
// publish starts it again with the messages that it has not tried.
func (s *stream) publish(ctx context.Context, l *lab, url string, end time.Time) error {
	for ended := false; !ended; {
		in, out, err := os.Pipe()
		if err != nil {
			return err
		}
		p, err := process.Start(ctx, process.Command{Args: []string{l.binary, "emit", "--lines", "--redis", url}, Env: withoutHearth(os.Environ()), Stdin: in})
		_ = in.Close()
		if err != nil {
			return errors.Join(err, out.Close())
		}
		ended = s.feed(ctx, p, out, end)
		_ = out.Close()
		if !p.EndsWithin(30 * time.Second) {
			p.Kill()
			return fmt.Errorf("hearth emit did not end: %s", p.Stderr)
		}
		sent, failed := parseSummary(p.Stderr.String())
		s.tried, s.failed = s.tried+sent+failed, s.failed+failed
		ended = ended && p.Err() == nil
		if !ended {
			if err := sleep(ctx, 200*time.Millisecond); err != nil {
				return err
			}
			if time.Now().After(end.Add(30 * time.Second)) {
				return fmt.Errorf("hearth emit could not send everything: %s", p.Stderr)
			}
		}
	}
	return nil
}

// feed writes messages until the end time, first those that an earlier emitter did not try. It
// reports whether it could write all.
func (s *stream) feed(ctx context.Context, p *process.Process, out *os.File, end time.Time) bool {
	next := s.tried
	for {
		if next >= len(s.written) {
			if time.Now().After(end) || ctx.Err() != nil {
				return true
			}
			s.written = append(s.written, time.Time{})
			if sleep(ctx, streamPause) != nil {
				return true
			}
		}
		s.written[next] = time.Now()
		if _, err := fmt.Fprintf(out, `{"room":%q,"event":"tick","data":{"n":%d}}`+"\n", streamRoom, next); err != nil {
			return false
		}
		next++
		if !p.Alive() {
			return false
		}
	}
}

var (
	sentCount   = regexp.MustCompile(`(\d+) sent`)
	failedCount = regexp.MustCompile(`failed: (\d+)`)
)

// parseSummary parses the last line of hearth emit.
func parseSummary(text string) (sent, failed int) {
	if m := sentCount.FindStringSubmatch(text); m != nil {
		sent, _ = strconv.Atoi(m[1])
	}
	if m := failedCount.FindStringSubmatch(text); m != nil {
		failed, _ = strconv.Atoi(m[1])
	}
	return sent, failed
}

// account compares the published messages with those that each client received and those that were
// reported.
func (s *stream) account(listeners []listener) (figure, error) {
	var delivered, told, unreported int
	for i := range listeners {
		got, within, missing := listeners[i].compare(s.written[:s.tried])
		if got == 0 {
			return figure{}, errors.New("a client received no message")
		}
		delivered, told, unreported = delivered+got, told+within, unreported+max(0, missing-s.failed)
	}
	return figure{name: "published - delivered - reported", value: float64(unreported), target: atMost(0),
		note: fmt.Sprintf("published %d for %d clients, delivered %d; the time of a resync covers %d; the emitter reported %d", s.tried, len(listeners),
			delivered, told, s.failed)}, nil
}

// compare counts the messages that the client received, those that were reported as missing, and
// the others.
func (l *listener) compare(written []time.Time) (got, told, missing int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, at := range written {
		switch {
		case l.got[n]:
			got++
		case l.reportedLocked(at):
			told++
		default:
			missing++
		}
	}
	return got, told, missing
}

// reportedLocked reports whether the client received a resync for this time.
func (l *listener) reportedLocked(at time.Time) bool {
	return slices.ContainsFunc(l.resyncs, func(w window) bool {
		return slices.Contains(w.Rooms, streamRoom) && !at.Before(w.Since.Add(-tolerance)) && !at.After(w.Until.Add(tolerance))
	})
}

// restart kills Redis and starts it again a second later.
func restart(ctx context.Context, l *lab) ([]figure, error) {
	r, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	return oneNode(ctx, l, r.URL(), 5*time.Second, func() error {
		r.Process.Kill()
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
		return r.Restart(ctx)
	})
}

// cut closes the connections of subscribers several times.
func cut(ctx context.Context, l *lab) ([]figure, error) {
	r, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	return oneNode(ctx, l, r.URL(), 5*time.Second, func() error {
		for range 3 {
			if _, err := command(ctx, r.Addr(), "CLIENT", "KILL", "TYPE", "pubsub"); err != nil {
				return err
			}
			if err := sleep(ctx, 700*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	})
}

// oneNode counts the messages of a stream that a client of a single node misses.
func oneNode(ctx context.Context, l *lab, url string, length time.Duration, fault func() error) ([]figure, error) {
	nodes, err := l.nodes(ctx, 1, url, "--resync")
	if err != nil {
		return nil, err
	}
	lost, err := underStream(ctx, l, url, nodes, length, fault)
	return []figure{lost}, err
}

// failover makes the replica the master with Sentinels. Nodes and emitters detect that by
// themselves, each at its own time, so the nodes are started at different times.
func failover(ctx context.Context, l *lab) ([]figure, error) {
	sentinels, err := startSentinels(ctx, l)
	if err != nil {
		return nil, err
	}
	url := "redis://" + sentinels[0].Addr() + "?master_set=" + masterSet
	for _, s := range sentinels[1:] {
		url += "&addr=" + s.Addr()
	}
	var nodes []*server
	for range 5 {
		node, err := l.serve(ctx, "--redis", url, "--resync")
		if err == nil {
			err = sleep(ctx, time.Second)
		}
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
	lost, err := underStream(ctx, l, url, nodes, 9*time.Second, func() error {
		_, err := command(ctx, sentinels[0].Addr(), "SENTINEL", "FAILOVER", masterSet)
		return err
	})
	return []figure{lost}, err
}

const masterSet = "hearth"

// startSentinels starts a master, a replica, and three Sentinels. It returns the Sentinels when
// they know all the others.
func startSentinels(ctx context.Context, l *lab) ([]*redis.Server, error) {
	master, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	_, err = l.redis(ctx, []string{fmt.Sprintf("replicaof 127.0.0.1 %d", master.Port), "repl-diskless-sync-delay 0"})
	if err != nil {
		return nil, err
	}
	var sentinels []*redis.Server
	for range 3 {
		s, err := l.redis(ctx, []string{
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", masterSet, master.Port),
			"sentinel down-after-milliseconds " + masterSet + " 3000",
			"sentinel failover-timeout " + masterSet + " 10000",
		}, "--sentinel")
		if err != nil {
			return nil, err
		}
		sentinels = append(sentinels, s)
	}
	for _, s := range sentinels {
		if err := awaitSentinel(ctx, s); err != nil {
			return nil, err
		}
	}
	return sentinels, nil
}

func awaitSentinel(ctx context.Context, s *redis.Server) error {
	for {
		about, err := command(ctx, s.Addr(), "SENTINEL", "MASTER", masterSet)
		if err != nil {
			return err
		}
		replicas, _ := about.Get("num-slaves").Text()
		sentinels, _ := about.Get("num-other-sentinels").Text()
		flags, _ := about.Get("flags").Text()
		if replicas == "1" && sentinels == "2" && flags == "master" {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("a Sentinel knows %q replicas, %q others, and its master is %q: %w", replicas, sentinels, flags, err)
		}
	}
}
