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

// ErrSlow is returned, wrapped, by Hold when Redis has not answered within Config.HoldTimeout. The
// channels are held anyway.
var ErrSlow = errors.New("redis did not answer in time")

// Reasons why messages were not received, or may not have been.
var (
	errProbeLost      = errors.New("redis: a message of this node to itself did not arrive")
	errSubscribing    = errors.New("redis: subscribing to all held channels again")
	errSubscribedLate = errors.New("redis: subscribed after Hold had returned")
)

// patterns match the channels of all rooms, clients and users.
var patterns = []string{protocol.RoomChannelPattern, protocol.ClientChannelPattern, protocol.UserChannelPattern}

// A subscription is the receiving half of a broker: one connection at a time, and one goroutine
// that maintains it (run). The goroutine subscribes and unsubscribes in rounds. A round takes the
// same number of channels from each Hold that waits.
type subscription struct {
	// Set by newSubscription, then read-only.
	config       Config
	dialer       *dialer
	publisher    *publisher
	inbox        *inbox
	health       *health
	malformed    *limitedLog // for malformed messages
	rejections   *limitedLog // for channels that Redis rejects
	probeChannel string      // the channel of the node's probes
	// ownPrefix returns how protocol.AppendMessage begins every message of the server.
	ownPrefix string // the beginning of the JSON of the node's messages
	created   time.Time

	wake   chan struct{} // has room for one; tells run to look again
	probes chan string   // received probes; has room for one

	// Owned by run, and by Start before it.
	probeSent     string    // the probe that has not arrived yet; empty for none
	probeSentAt   time.Time // when it was sent
	provenAt      time.Time // everything published before then has been received
	reportedUntil time.Time // losses of earlier connections have been reported up to then
	addr          string    // of the server

	endLinger func() // closes the connection that retire keeps, if any, and waits

	lastRejection error // the last error about a rejected channel; owned by run
	restoring     bool  // not all channels are subscribed again after a loss; owned by run

	expectedProbe atomic.Pointer[string] // probeSent, for the goroutine that reads

	mu       sync.Mutex // guards the fields below
	channels channels
	ending   []*request // end with the current round
	// reported is a loss reported by publishers and not yet passed on; nil for none.
	reported *timeSpan
	down     bool
	closed   bool
}

func newSubscription(b *Broker, serverID string) *subscription {
	s := &subscription{
		config: b.config, dialer: b.dialer, publisher: b.publisher, inbox: b.inbox, health: &b.health, malformed: b.malformed,
		probeChannel: b.config.channel("hearth:probe:" + serverID),
		rejections:   newReasonLog(b.config.Logger, "Redis rejected channels"),
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

// isCovered reports whether messages of the channel arrive without a subscription of its own.
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

// hold implements Broker.Hold.
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

// awaitRequest waits for the end of r, as long as ctx and Config.HoldTimeout allow.
func (s *subscription) awaitRequest(ctx context.Context, r *request) error {
	timeout := time.NewTimer(s.config.HoldTimeout)
	defer timeout.Stop()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return ErrSlow
	}
}

// afterHold returns the result of Hold. If that is an error, a loss will be reported when the
// channels are subscribed, because messages may be missed until then.
func (s *subscription) afterHold(channels []string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && len(s.channels.rejected) > 0 {
		for _, channel := range channels {
			if _, no := s.channels.rejected[channel]; no {
				err = fmt.Errorf("redis rejected %q", clip(s.config.channel(channel)))
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

// wakeUp makes run look for work.
func (s *subscription) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// release implements Broker.Release.
func (s *subscription) release(channels []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.channels.idle.Len()
	now := time.Since(s.created)
	for _, channel := range channels {
		s.channels.release(channel, now)
	}
	if before == 0 && s.channels.idle.Len() > 0 {
		s.wakeUp() // to set the timer
	}
}

// open connects and subscribes to broadcasts and probes.
func (s *subscription) open(ctx context.Context) (*conn, error) {
	demoted := new(atomic.Bool)
	r := &batcher{inbox: s.inbox, malformed: s.malformed, maxMessage: s.config.MaxMessage, ownPrefix: s.ownPrefix, history: len(s.config.History) > 0, probeChannel: s.probeChannel, onProbe: func(probe string) {
		if sent := s.expectedProbe.Load(); demoted.Load() || sent == nil || probe != *sent {
			return // any client may publish on that channel
		}
		select {
		case s.probes <- probe:
		default: // one is there already
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

// doAll sends commands, and returns an error unless all succeed.
func (s *subscription) doAll(ctx context.Context, c *conn, commands [][]string) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.ProbeTimeout)
	defer cancel()
	replies, err := c.Pipeline(ctx, commands...)
	for _, r := range replies {
		err = cmp.Or(err, r.Err())
	}
	return err
}

// sendProbe publishes a message to this node. At began the connection was known to lead to the
// right server.
func (s *subscription) sendProbe(began time.Time) *call {
	// A probe that can be guessed could make a dead subscription look alive.
	probe := rand.Text()
	s.probeSent, s.probeSentAt = probe, began
	s.expectedProbe.Store(&probe)
	return s.publisher.putProbe(s.probeChannel, s.probeSent)
}

// probeReceived handles a probe that has arrived: all messages published before it was sent have
// arrived, too.
func (s *subscription) probeReceived(probe string) bool {
	if probe != s.probeSent || probe == "" {
		return false
	}
	s.probeSent = ""
	s.provenAt = s.probeSentAt
	var rejected error
	s.health.update(func() { rejected, s.health.probeErr = s.health.probeErr, nil })
	if rejected != nil {
		s.config.Logger.Info("Redis accepts messages to other nodes again")
	}
	return true
}

// verify sends a probe and waits until it arrives, for Start.
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
