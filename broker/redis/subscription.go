package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/resp"
	"github.com/hearthws/hearth/protocol"
)

// ErrSlow is returned, wrapped, by Hold when Redis has not answered within Config.HoldTimeout. The channels count as held.
var ErrSlow = errors.New("redis has not answered in time")

// Why reception failed, or was not to be relied on.
var (
	errProbe       = errors.New("redis: what this node publishes does not come back to it")
	errSubscribing = errors.New("redis: what is held is being subscribed again")
	errUnasked     = errors.New("redis: subscribed later than Hold returned")
)

// patterns cover rooms, clients and users.
var patterns = []string{protocol.RoomChannelPattern, protocol.ClientChannelPattern, protocol.UserChannelPattern}

// A subscription is the half of a broker that receives: one wire at a time, and one goroutine that
// tends it. That one subscribes and unsubscribes in rounds. A round takes the same number of
// channels from each Hold that waits.
type subscription struct {
	// Set by newSubscription, then read-only.
	config   Config
	dialer   *dialer
	outbox   *outbox
	inbox    *inbox
	health   *health
	bad      *throttle // of messages that are none
	refusals *throttle // of channels
	probe    string    // the channel of the node's messages to itself
	own      string    // how messages of the node begin
	begun    time.Time

	wake chan struct{} // holds one
	seen chan string   // probes that have come back; holds one

	// Owned by run, and by Start before it.
	sent   string    // the probe that is awaited; empty for none
	sentAt time.Time // when that began
	known  time.Time // everything published before then has been received
	told   time.Time // up to then, what may have been missed of other connections has been told
	addr   string    // of the server

	endLinger func() // gives up a demoted master that is still listened to, if there is one, and waits for that

	refusal   error // the last that Redis had against a channel; owned by run
	restoring bool  // not all that was held when the connection was lost has been asked for again; owned by run

	awaited atomic.Pointer[string] // sent, for the goroutine that reads

	mu    sync.Mutex // guards the fields below
	holds holds
	last  []*request // end with the round that is under way
	// What publishers have reported that may be missing, and is to be told; nil for nothing.
	reported *span
	down     bool
	closed   bool
}

func newSubscription(b *Broker, serverID string) *subscription {
	s := &subscription{
		config: b.config, dialer: b.dialer, outbox: b.outbox, inbox: b.inbox, health: &b.health, bad: b.bad,
		probe:    b.config.channel("hearth:probe:" + serverID),
		refusals: newReasoned(b.config.Logger, "Redis refuses channels"),
		begun:    time.Now(),
		wake:     make(chan struct{}, 1), endLinger: func() {},
		seen: make(chan string, 1),
	}
	s.own = ownPrefix(serverID)
	return s
}

// ownPrefix is how protocol.AppendMessage begins every message of the server.
func ownPrefix(serverID string) string {
	line := protocol.AppendMessage(nil, protocol.Message{ServerID: serverID, Type: protocol.TypeBroadcast, Event: "e"})
	head, _, _ := strings.Cut(string(line), `"type"`)
	return head
}

// covered reports whether channel needs no subscription of its own.
func (s *subscription) covered(channel string) bool {
	if channel == protocol.BroadcastChannel {
		return true
	}
	if s.config.Patterns {
		for _, p := range patterns {
			if strings.HasPrefix(channel, strings.TrimSuffix(p, "*")) {
				return true
			}
		}
	}
	return false
}

// hold is Broker.Hold.
func (s *subscription) hold(ctx context.Context, channels []string) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return broker.ErrClosed
	}
	var open []string
	for _, channel := range channels {
		if !s.covered(channel) && s.holds.hold(channel) {
			open = append(open, channel)
		}
	}
	if s.down {
		s.mu.Unlock()
		return fmt.Errorf("hold: %w", broker.ErrDown)
	}
	var r *request
	if len(open) > 0 {
		r = s.holds.request(open)
		s.wakeUp()
	}
	s.mu.Unlock()
	err := ctx.Err()
	if r != nil && err == nil {
		err = s.await(ctx, r)
	}
	return s.held(channels, err)
}

// await waits for the end of r, for as long as both ctx and Config.HoldTimeout allow.
func (s *subscription) await(ctx context.Context, r *request) error {
	late := time.NewTimer(s.config.HoldTimeout)
	defer late.Stop()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return ErrSlow
	}
}

// held is what Hold returns. Whoever gets an error is owed the loss that there may be until the channels are there.
func (s *subscription) held(channels []string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && len(s.holds.refused) > 0 {
		for _, channel := range channels {
			if _, no := s.holds.refused[channel]; no {
				err = fmt.Errorf("redis refuses %q", clip(s.config.channel(channel)))
				break
			}
		}
	}
	if err == nil {
		return nil
	}
	now := time.Since(s.begun)
	for _, channel := range channels {
		s.holds.owe(channel, now)
	}
	return fmt.Errorf("hold: %w", err)
}

func (s *subscription) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// release is Broker.Release.
func (s *subscription) release(channels []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rested := s.holds.idle.Len()
	now := time.Since(s.begun)
	for _, channel := range channels {
		s.holds.release(channel, now)
	}
	if rested == 0 && s.holds.idle.Len() > 0 {
		s.wakeUp() // to set the timer
	}
}

// open makes a wire that gets broadcasts and probes.
func (s *subscription) open(ctx context.Context) (*conn, error) {
	demoted := new(atomic.Bool)
	r := &reader{inbox: s.inbox, bad: s.bad, max: s.config.MaxMessage, own: s.own, probe: s.probe, seen: func(probe string) {
		if sent := s.awaited.Load(); demoted.Load() || sent == nil || probe != *sent {
			return // anyone may write there
		}
		select {
		case s.seen <- probe:
		default: // it has come before
		}
	}}
	w, err := s.dialer.open(ctx, resp.Options{OnMessage: r.message, BeforeRead: r.flush, MaxMessage: s.config.MaxMessage})
	if err != nil {
		return nil, fmt.Errorf("connect to subscribe: %w", err)
	}
	w.demoted = demoted
	commands := [][]string{{"SUBSCRIBE", s.config.channel(protocol.BroadcastChannel), s.probe}}
	if s.config.Patterns {
		commands = append(commands, append([]string{"PSUBSCRIBE"}, s.config.channels(patterns...)...))
	}
	if err := s.exchange(ctx, w, commands); err != nil {
		w.Close()
		return nil, fmt.Errorf("subscribe at %s: %w", w.addr, s.dialer.explain(err))
	}
	return w, nil
}

// exchange sends commands, all of which must succeed.
func (s *subscription) exchange(ctx context.Context, w *conn, commands [][]string) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.ProbeTimeout)
	defer cancel()
	replies, err := w.Pipeline(ctx, commands...)
	for _, r := range replies {
		err = cmp.Or(err, r.Err())
	}
	return err
}

// sendProbe publishes a message to this node. At began the wire was known to be the right one.
func (s *subscription) sendProbe(began time.Time) *call {
	probe := rand.Text() // nobody can guess it, and have a dead subscription pass for a live one
	s.sent, s.sentAt = probe, began
	s.awaited.Store(&probe)
	return s.outbox.putProbe(s.probe, s.sent)
}

// back takes a probe that has come: everything that was published before it was sent has come, too.
func (s *subscription) back(probe string) bool {
	if probe != s.sent || probe == "" {
		return false
	}
	s.sent = ""
	s.known = s.sentAt
	var refused error
	s.health.update(func() { refused, s.health.echo = s.health.echo, nil })
	if refused != nil {
		s.config.Logger.Info("Redis takes messages to other nodes again")
	}
	return true
}

// prove has a probe make the whole way, for Start.
func (s *subscription) prove(ctx context.Context, w *conn) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.ProbeTimeout)
	defer cancel()
	call := s.sendProbe(time.Now())
	published := call.done
	for {
		select {
		case <-published:
			if err := call.errs[0]; err != nil {
				return err
			}
			published = nil
		case probe := <-s.seen:
			if s.back(probe) {
				return nil
			}
		case <-w.Done():
			return fmt.Errorf("subscription at %s: %w", w.addr, lostConnection(w.Err()))
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errProbe, ctx.Err())
		}
	}
}
