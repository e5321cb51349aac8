package redis

import (
	"time"

	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/internal/shrinkmap"
)

// A phase is the state of a channel between being held and being subscribed.
type phase uint8

const (
	phasePending       phase = iota + 1 // held, to be subscribed in the next round
	phaseSubscribing                    // in the current round
	phaseSubscribed                     // subscribed
	phaseUnsubscribing                  // in the current round
	phaseRejected                       // held, and Redis rejected it
)

// A channelState exists while the channel is held or subscribed.
type channelState struct {
	count       uint32
	phase       phase
	inIdle      bool          // in channels.idle
	lossPending bool          // Hold failed: report a loss once it is subscribed
	at          time.Duration // since when it is idle, or its loss pending
}

// channels are the channels that a node holds or is subscribed to. Not safe for concurrent use.
type channels struct {
	states shrinkmap.Map[string, channelState]

	requests    fifo.Queue[*request]    // of the Holds that wait, in the order of their turns
	unrequested []string                // pending without a request; some may be released
	idle        fifo.Queue[idleChannel] // subscribed, not held, oldest first; some may be held
	rejected    map[string]struct{}     // those in phaseRejected
}

// A request is the part of a Hold that waits for Redis.
type request struct {
	channels []string      // not in a round yet; some may have been released since
	done     chan struct{} // closed when Redis has answered for all channels, or err is set
	err      error         // why Redis will not answer; read it after done
}

// end ends the wait of a Hold.
func (r *request) end(err error) {
	r.err = err
	close(r.done)
}

// An idleChannel was released by its last holder.
type idleChannel struct {
	channel string
	at      time.Duration
}

// hold counts one more holder. It reports whether Redis has still to confirm the channel. The
// caller then adds a request that names it, unless the connection is down: every held channel is
// subscribed after that.
func (c *channels) hold(channel string) (waits bool) {
	v := c.states.Get(channel)
	v.count++
	switch v.phase {
	case phasePending, phaseSubscribing, phaseSubscribed:
	default:
		delete(c.rejected, channel)
		v.phase = phasePending
	}
	c.states.Put(channel, v)
	return v.phase != phaseSubscribed
}

// request adds a request for channels.
func (c *channels) request(channels []string) *request {
	r := &request{channels: channels, done: make(chan struct{})}
	c.requests.Push(r)
	return r
}

// fail ends all requests.
func (c *channels) fail(err error) {
	for c.requests.Len() > 0 {
		c.requests.Pop().end(err)
	}
}

// hasWork reports whether there are channels to subscribe.
func (c *channels) hasWork() bool { return c.requests.Len() > 0 || len(c.unrequested) > 0 }

// release counts one holder less.
func (c *channels) release(channel string, now time.Duration) {
	v, held := c.states.Lookup(channel)
	if !held || v.count == 0 {
		return
	}
	if v.count--; v.count > 0 {
		c.states.Put(channel, v)
		return
	}
	v.lossPending = false
	switch v.phase {
	case phasePending, phaseRejected:
		delete(c.rejected, channel)
		c.states.Delete(channel)
	case phaseSubscribed:
		c.startGrace(channel, v, now)
	default:
		c.states.Put(channel, v)
	}
}

// startGrace starts the time after which a channel without holders is unsubscribed.
func (c *channels) startGrace(channel string, v channelState, now time.Duration) {
	v.at = now
	if !v.inIdle {
		v.inIdle = true
		c.idle.Push(idleChannel{channel, now})
	}
	c.states.Put(channel, v)
}

// setLossPending records that Hold returned an error for the channel, unless it is subscribed
// already.
func (c *channels) setLossPending(channel string, now time.Duration) {
	if v, held := c.states.Lookup(channel); held && v.phase != phaseSubscribed && v.phase != phaseUnsubscribing && !v.lossPending {
		v.lossPending, v.at = true, now
		c.states.Put(channel, v)
	}
}

// nextRound returns the channels to subscribe in this round, and the requests that end with it. The
// requests take turns of turnChannels until there are n channels. Up to rest channels without a
// request are added.
func (c *channels) nextRound(n, rest int) (ask []string, last []*request) {
	for c.requests.Len() > 0 && len(ask) < n {
		r := c.requests.Pop()
		ask, r.channels = c.startSubscribing(ask, r.channels, turnChannels)
		if len(r.channels) > 0 {
			c.requests.Push(r)
		} else {
			last = append(last, r)
		}
	}
	ask, c.unrequested = c.startSubscribing(ask, c.unrequested, rest)
	return ask, last
}

// startSubscribing appends to ask up to n of the channels that are still pending. It returns the
// channels behind those, nil if there are none.
func (c *channels) startSubscribing(ask, channels []string, n int) (_, rest []string) {
	for i, channel := range channels {
		v := c.states.Get(channel)
		if v.phase != phasePending {
			continue
		}
		if n == 0 {
			return ask, channels[i:]
		}
		n--
		v.phase = phaseSubscribing
		c.states.Put(channel, v)
		ask = append(ask, channel)
	}
	return ask, nil
}

// confirm records that channels are subscribed. It returns those with a loss pending, and since
// when the first of them has one.
func (c *channels) confirm(channels []string, now time.Duration) (owed []string, since time.Duration) {
	for _, channel := range channels {
		v, held := c.states.Lookup(channel)
		if !held || v.phase != phaseSubscribing {
			continue
		}
		v.phase = phaseSubscribed
		if v.lossPending {
			if len(owed) == 0 || v.at < since {
				since = v.at
			}
			owed = append(owed, channel)
			v.lossPending = false
		}
		if v.count == 0 {
			c.startGrace(channel, v, now)
		} else {
			c.states.Put(channel, v)
		}
	}
	return owed, since
}

// reject records that Redis rejected a channel. Hold returns an error for it, and a loss is
// reported once Redis accepts it.
func (c *channels) reject(channel string, now time.Duration) {
	v, held := c.states.Lookup(channel)
	if !held || v.phase != phaseSubscribing {
		return
	}
	if v.count == 0 {
		c.states.Delete(channel)
		return
	}
	v.phase = phaseRejected
	if !v.lossPending {
		v.lossPending, v.at = true, now
	}
	c.states.Put(channel, v)
	if c.rejected == nil {
		c.rejected = make(map[string]struct{})
	}
	c.rejected[channel] = struct{}{}
}

// retryRejected puts up to n rejected channels into the next round.
func (c *channels) retryRejected(n int) {
	for channel := range c.rejected {
		if n--; n < 0 {
			return
		}
		delete(c.rejected, channel)
		v := c.states.Get(channel)
		v.phase = phasePending
		c.states.Put(channel, v)
		c.unrequested = append(c.unrequested, channel)
	}
}

// expired returns up to n channels to unsubscribe in this round: those that have been idle since
// before the given time, and the oldest of those by which their number exceeds idle.
func (c *channels) expired(before time.Duration, idle, n int) []string {
	var channels []string
	for len(channels) < n {
		first := c.idle.Peek()
		if first == nil || first.at > before && c.idle.Len() <= idle {
			break
		}
		channel, since := first.channel, first.at
		c.idle.Pop()
		v := c.states.Get(channel)
		v.inIdle = false
		switch {
		case v.phase == 0: // gone
			continue
		case v.count > 0 || v.phase != phaseSubscribed: // held again
		case v.at > before && v.at > since: // held again meanwhile, and released again
			c.startGrace(channel, v, v.at)
			continue
		default:
			v.phase = phaseUnsubscribing
			channels = append(channels, channel)
		}
		c.states.Put(channel, v)
	}
	return channels
}

// unsubscribed records that channels are no longer subscribed. Those that are held again are
// subscribed in the next round.
func (c *channels) unsubscribed(channels []string) {
	for _, channel := range channels {
		if v := c.states.Get(channel); v.phase == phaseUnsubscribing {
			c.states.Delete(channel)
		}
	}
}

// reset is for a new connection, on which no channel is subscribed: every held channel becomes
// pending. The requests have failed before.
func (c *channels) reset() {
	var m shrinkmap.Map[string, channelState]
	c.unrequested, c.idle, c.rejected = nil, fifo.Queue[idleChannel]{}, nil
	for channel, v := range c.states.All() {
		if v.count > 0 {
			// The loss of the connection includes pending ones.
			m.Put(channel, channelState{count: v.count, phase: phasePending})
			c.unrequested = append(c.unrequested, channel)
		}
	}
	c.states = m
}
