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
	errProbeLost      = errors.New("redis: what this node publishes does not come back to it")
	errSubscribing    = errors.New("redis: what is held is being subscribed again")
	errSubscribedLate = errors.New("redis: subscribed later than Hold returned")
)

// patterns cover rooms, clients and users.
var patterns = []string{protocol.RoomChannelPattern, protocol.ClientChannelPattern, protocol.UserChannelPattern}

// A subscription is the half of a broker that receives: one wire at a time, and one goroutine that
// tends it. That one subscribes and unsubscribes in rounds. A round takes the same number of
// channels from each Hold that waits.
type subscription struct {
	// Set by newSubscription, then read-only.
	config       Config
	dialer       *dialer
	publisher    *publisher
	inbox        *inbox
	health       *health
	malformed    *limitedLog // of messages that are none
	rejections   *limitedLog // of channels
	probeChannel string      // the channel of the node's messages to itself
	ownPrefix    string      // how messages of the node begin
	created      time.Time

	wake   chan struct{} // holds one
	probes chan string   // probes that have come back; holds one

	// Owned by run, and by Start before it.
	probeSent     string    // the probe that is awaited; empty for none
	probeSentAt   time.Time // when that began
	provenAt      time.Time // everything published before then has been received
	reportedUntil time.Time // up to then, what may have been missed of other connections has been told
	addr          string    // of the server

	endLinger func() // gives up a demoted master that is still listened to, if there is one, and waits for that

	lastRejection error // the last that Redis had against a channel; owned by run
	restoring     bool  // not all that was held when the connection was lost has been asked for again; owned by run

	expectedProbe atomic.Pointer[string] // sent, for the goroutine that reads

	mu       sync.Mutex // guards the fields below
	channels channels
	ending   []*request // end with the round that is under way
	// What publishers have reported that may be missing, and is to be told; nil for nothing.
	reported *timeSpan
	down     bool
	closed   bool
}

func newSubscription(b *Broker, serverID string) *subscription {
	s := &subscription{
		config: b.config, dialer: b.dialer, publisher: b.publisher, inbox: b.inbox, health: &b.health, malformed: b.malformed,
		probeChannel: b.config.channel("hearth:probe:" + serverID),
		rejections:   newReasonLog(b.config.Logger, "Redis refuses channels"),
		created:      time.Now(),
		wake:         make(chan struct{}, 1), endLinger: func() {},
		probes: make(chan string, 1),
	}
	s.ownPrefix = ownPrefix(serverID)
	return s
}

// ownPrefix is how protocol.AppendMessage begins every message of the server.
func ownPrefix(serverID string) string {
	line := protocol.AppendMessage(nil, protocol.Message{ServerID: serverID, Type: protocol.TypeBroadcast, Event: "e"})
	head, _, _ := strings.Cut(string(line), `"type"`)
	return head
}

// covered reports whether channel needs no subscription of its own.
func (s *subscription) isCovered(channel string) bool {
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
		if !s.isCovered(channel) && s.channels.hold(channel) {
			open = append(open, channel)
		}
	}
	if s.down {
		s.mu.Unlock()
		return fmt.Errorf("hold: %w", broker.ErrDown)
	}
	var r *request
	if len(open) > 0 {
		r = s.channels.request(open)
		s.wakeUp()
	}
	s.mu.Unlock()
	err := ctx.Err()
	if r != nil && err == nil {
		err = s.awaitRequest(ctx, r)
	}
	return s.afterHold(channels, err)
}

// await waits for the end of r, for as long as both ctx and Config.HoldTimeout allow.
func (s *subscription) awaitRequest(ctx context.Context, r *request) error {
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
func (s *subscription) afterHold(channels []string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && len(s.channels.rejected) > 0 {
		for _, channel := range channels {
			if _, no := s.channels.rejected[channel]; no {
				err = fmt.Errorf("redis refuses %q", clip(s.config.channel(channel)))
				break
			}
		}
	}
	if err == nil {
		return nil
	}
	now := time.Since(s.created)
	for _, channel := range channels {
		s.channels.setLossPending(channel, now)
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
	rested := s.channels.idle.Len()
	now := time.Since(s.created)
	for _, channel := range channels {
		s.channels.release(channel, now)
	}
	if rested == 0 && s.channels.idle.Len() > 0 {
		s.wakeUp() // to set the timer
	}
}

// open makes a wire that gets broadcasts and probes.
func (s *subscription) open(ctx context.Context) (*conn, error) {
	demoted := new(atomic.Bool)
	r := &batcher{inbox: s.inbox, malformed: s.malformed, maxMessage: s.config.MaxMessage, ownPrefix: s.ownPrefix, probeChannel: s.probeChannel, onProbe: func(probe string) {
		if sent := s.expectedProbe.Load(); demoted.Load() || sent == nil || probe != *sent {
			return // anyone may write there
		}
		select {
		case s.probes <- probe:
		default: // it has come before
		}
	}}
	c, err := s.dialer.open(ctx, resp.Options{OnMessage: r.message, BeforeRead: r.flush, MaxMessage: s.config.MaxMessage})
	if err != nil {
		return nil, fmt.Errorf("connect to subscribe: %w", err)
	}
	c.demoted = demoted
	commands := [][]string{{"SUBSCRIBE", s.config.channel(protocol.BroadcastChannel), s.probeChannel}}
	if s.config.Patterns {
		commands = append(commands, append([]string{"PSUBSCRIBE"}, s.config.channels(patterns...)...))
	}
	if err := s.doAll(ctx, c, commands); err != nil {
		c.Close()
		return nil, fmt.Errorf("subscribe at %s: %w", c.addr, s.dialer.explain(err))
	}
	return c, nil
}

// exchange sends commands, all of which must succeed.
func (s *subscription) doAll(ctx context.Context, c *conn, commands [][]string) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.ProbeTimeout)
	defer cancel()
	replies, err := c.Pipeline(ctx, commands...)
	for _, r := range replies {
		err = cmp.Or(err, r.Err())
	}
	return err
}

// sendProbe publishes a message to this node. At began the wire was known to be the right one.
func (s *subscription) sendProbe(began time.Time) *call {
	probe := rand.Text() // nobody can guess it, and have a dead subscription pass for a live one
	s.probeSent, s.probeSentAt = probe, began
	s.expectedProbe.Store(&probe)
	return s.publisher.putProbe(s.probeChannel, s.probeSent)
}

// back takes a probe that has come: everything that was published before it was sent has come, too.
func (s *subscription) probeReceived(probe string) bool {
	if probe != s.probeSent || probe == "" {
		return false
	}
	s.probeSent = ""
	s.provenAt = s.probeSentAt
	var refused error
	s.health.update(func() { refused, s.health.probeErr = s.health.probeErr, nil })
	if refused != nil {
		s.config.Logger.Info("Redis takes messages to other nodes again")
	}
	return true
}

// prove has a probe make the whole way, for Start.
func (s *subscription) verify(ctx context.Context, c *conn) error {
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
		case probe := <-s.probes:
			if s.probeReceived(probe) {
				return nil
			}
		case <-c.Done():
			return fmt.Errorf("subscription at %s: %w", c.addr, lostConnection(c.Err()))
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errProbeLost, ctx.Err())
		}
	}
}
