package redis

import (
	"time"

	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/internal/shrinkmap"
)

// A phase is how far a channel is between being held and being subscribed.
type phase uint8

const (
	wanted  phase = iota + 1 // held, and to be asked for in the next round
	asking                   // in the round that is under way
	there                    // subscribed
	leaving                  // to be unsubscribed by the round that is under way
	refused                  // held, and Redis said no
)

// A hold is what is known of one channel. It exists while somebody holds the channel, or it is subscribed.
type hold struct {
	count  uint32
	phase  phase
	queued bool          // in holds.idle
	owed   bool          // an error was returned to whoever held it: once it is there, a loss is told
	at     time.Duration // since when it is idle, or owed
}

// holds are the channels of a node. Not safe for concurrent use.
type holds struct {
	m shrinkmap.Map[string, hold]

	requests fifo.Queue[*request] // of the Holds that wait, in the order of their turns
	pending  []string             // wanted, with no request; some may have been released since
	idle     fifo.Queue[idling]   // those in phase there that nobody holds, as they became so; some may be held again
	refused  map[string]struct{}  // those in phase refused
}

// A request is what a Hold waits for.
type request struct {
	channels []string      // not asked for yet; some may have been released since
	done     chan struct{} // closed when Redis has answered for all, or err is set
	err      error         // why it will not; read after done
}

// end closes done.
func (r *request) end(err error) {
	r.err = err
	close(r.done)
}

// An idling channel was released by its last holder.
type idling struct {
	channel string
	at      time.Duration
}

// hold counts one more holder. It reports whether Redis has still to answer for the channel. The
// caller then adds a request that names it, unless the connection is down: after that, every held
// channel is asked for.
func (h *holds) hold(channel string) (waits bool) {
	v := h.m.Get(channel)
	v.count++
	switch v.phase {
	case wanted, asking, there:
	default:
		delete(h.refused, channel)
		v.phase = wanted
	}
	h.m.Put(channel, v)
	return v.phase != there
}

// request adds a request for channels.
func (h *holds) request(channels []string) *request {
	r := &request{channels: channels, done: make(chan struct{})}
	h.requests.Push(r)
	return r
}

// fail ends all requests.
func (h *holds) fail(err error) {
	for h.requests.Len() > 0 {
		h.requests.Pop().end(err)
	}
}

// waiting reports whether there is something to ask for.
func (h *holds) waiting() bool { return h.requests.Len() > 0 || len(h.pending) > 0 }

// release takes one holder back.
func (h *holds) release(channel string, now time.Duration) {
	v, held := h.m.Lookup(channel)
	if !held || v.count == 0 {
		return
	}
	if v.count--; v.count > 0 {
		h.m.Put(channel, v)
		return
	}
	v.owed = false
	switch v.phase {
	case wanted, refused:
		delete(h.refused, channel)
		h.m.Delete(channel)
	case there:
		h.rest(channel, v, now)
	default:
		h.m.Put(channel, v)
	}
}

// rest has a channel wait for the end of the grace.
func (h *holds) rest(channel string, v hold, now time.Duration) {
	v.at = now
	if !v.queued {
		v.queued = true
		h.idle.Push(idling{channel, now})
	}
	h.m.Put(channel, v)
}

// owe notes that whoever held channel was given an error, unless it is there already.
func (h *holds) owe(channel string, now time.Duration) {
	if v, held := h.m.Lookup(channel); held && v.phase != there && v.phase != leaving && !v.owed {
		v.owed, v.at = true, now
		h.m.Put(channel, v)
	}
}

// take returns the channels to ask for in this round, and the requests that end with it. The
// requests take turns of turnChannels until there are n channels. Up to rest pending channels are
// added.
func (h *holds) take(n, rest int) (ask []string, last []*request) {
	for h.requests.Len() > 0 && len(ask) < n {
		r := h.requests.Pop()
		ask, r.channels = h.asking(ask, r.channels, turnChannels)
		if len(r.channels) > 0 {
			h.requests.Push(r)
		} else {
			last = append(last, r)
		}
	}
	ask, h.pending = h.asking(ask, h.pending, rest)
	return ask, last
}

// asking appends to ask up to n of the channels that are still wanted. It returns the channels
// behind those, nil if there are none.
func (h *holds) asking(ask, channels []string, n int) (_, rest []string) {
	for i, channel := range channels {
		v := h.m.Get(channel)
		if v.phase != wanted {
			continue
		}
		if n == 0 {
			return ask, channels[i:]
		}
		n--
		v.phase = asking
		h.m.Put(channel, v)
		ask = append(ask, channel)
	}
	return ask, nil
}

// confirm notes that channels are subscribed. It returns those owed, and since when the first of them is.
func (h *holds) confirm(channels []string, now time.Duration) (owed []string, since time.Duration) {
	for _, channel := range channels {
		v, held := h.m.Lookup(channel)
		if !held || v.phase != asking {
			continue
		}
		v.phase = there
		if v.owed {
			if len(owed) == 0 || v.at < since {
				since = v.at
			}
			owed = append(owed, channel)
			v.owed = false
		}
		if v.count == 0 {
			h.rest(channel, v, now)
		} else {
			h.m.Put(channel, v)
		}
	}
	return owed, since
}

// refuse notes that Redis said no. Whoever holds the channel is told so, and owed what comes once it says yes.
func (h *holds) refuse(channel string, now time.Duration) {
	v, held := h.m.Lookup(channel)
	if !held || v.phase != asking {
		return
	}
	if v.count == 0 {
		h.m.Delete(channel)
		return
	}
	v.phase = refused
	if !v.owed {
		v.owed, v.at = true, now
	}
	h.m.Put(channel, v)
	if h.refused == nil {
		h.refused = make(map[string]struct{})
	}
	h.refused[channel] = struct{}{}
}

// again puts up to n refused channels into the next round.
func (h *holds) again(n int) {
	for channel := range h.refused {
		if n--; n < 0 {
			return
		}
		delete(h.refused, channel)
		v := h.m.Get(channel)
		v.phase = wanted
		h.m.Put(channel, v)
		h.pending = append(h.pending, channel)
	}
}

// expired is what has been idle since before the given time, and the oldest of what is idle beyond as many channels as may be:
// up to n channels, to be unsubscribed in this round.
func (h *holds) expired(before time.Duration, idle, n int) []string {
	var channels []string
	for len(channels) < n {
		first := h.idle.Peek()
		if first == nil || first.at > before && h.idle.Len() <= idle {
			break
		}
		channel, since := first.channel, first.at
		h.idle.Pop()
		v := h.m.Get(channel)
		v.queued = false
		switch {
		case v.phase == 0: // gone
			continue
		case v.count > 0 || v.phase != there: // held again
		case v.at > before && v.at > since: // held again meanwhile, and released
			h.rest(channel, v, v.at)
			continue
		default:
			v.phase = leaving
			channels = append(channels, channel)
		}
		h.m.Put(channel, v)
	}
	return channels
}

// left notes that channels are no longer subscribed. Those that are held again are asked for in the next round.
func (h *holds) left(channels []string) {
	for _, channel := range channels {
		if v := h.m.Get(channel); v.phase == leaving {
			h.m.Delete(channel)
		}
	}
}

// restart is for a new connection, on which nothing is subscribed: every held channel is wanted.
// The requests have failed before.
func (h *holds) restart() {
	var m shrinkmap.Map[string, hold]
	h.pending, h.idle, h.refused = nil, fifo.Queue[idling]{}, nil
	for channel, v := range h.m.All() {
		if v.count > 0 {
			// The loss that is told of the connection covers what is owed.
			m.Put(channel, hold{count: v.count, phase: wanted})
			h.pending = append(h.pending, channel)
		}
	}
	h.m = m
}
