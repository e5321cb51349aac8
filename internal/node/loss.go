package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/session"
)

const (
	// resyncPause is the time from one resync to the next. A client should not be asked to reload
	// everything again while it still does so.
	resyncPause = time.Second

	// lossLogPause is the time between two log lines about losses.
	lossLogPause = 10 * time.Second

	// maxLostChannels is how many channels a pending loss lists. A loss of more channels counts as
	// one of any channel.
	maxLostChannels = 4096

	// maxInserts is how many channels are inserted one by one. A flood reports one loss for each
	// message, which names one channel, usually one that the set already has.
	maxInserts = 8
)

// losses counts reports of lost messages, and passes them to the log, the application and the
// clients.
type losses struct {
	// Set by newLosses, then read-only.
	stats     *session.Stats
	notifiers []*lossNotifier
}

// newLosses makes one notifier for each observer, so that each of them can take its own time. The
// notifiers do not pause any more when stopping is closed. tracks reports whether missing messages of
// a room are recovered without the clients.
func newLosses(cfg Config, env *session.Env, stopping <-chan struct{}, tracks func(room string) bool) *losses {
	notifiers := []*lossNotifier{{pause: lossLogPause, stopping: stopping, notify: func(l broker.Loss) { logLoss(env, l) }}}
	if call := cfg.BrokerLost; call != nil {
		notifiers = append(notifiers, &lossNotifier{stopping: stopping, notify: func(l broker.Loss) {
			env.RunCallback("broker lost", func(ctx context.Context) error {
				call(ctx, l)
				return nil
			})
		}})
	}
	if cfg.Resync {
		notifiers = append(notifiers, newResyncNotifier(&resyncer{env: env, tracks: tracks}, stopping))
	}
	return &losses{stats: env.Stats, notifiers: notifiers}
}

// newResyncNotifier makes the notifier that sends resync to the clients.
func newResyncNotifier(r *resyncer, stopping <-chan struct{}) *lossNotifier {
	n := &lossNotifier{pause: resyncPause, stopping: stopping}
	n.notify = func(l broker.Loss) {
		if r.resync(l) == 0 {
			return
		}
		select {
		case <-stopping:
		default:
			n.add(l) // after the pause all affected clients get it, also those that have had it
		}
	}
	return n
}

// report counts a loss of messages of other nodes, and queues it for all notifiers. The broker
// reports losses, and so does delivery on this node. report never blocks.
func (s *losses) report(l broker.Loss) {
	s.stats.BrokerLosses.Add(1)
	s.stats.BrokerLost.Add(l.Messages)
	for _, n := range s.notifiers {
		n.add(l)
	}
}

// wait blocks until all notifiers have handled all losses; see lossNotifier.wait.
func (s *losses) wait() {
	for _, n := range s.notifiers {
		n.wait()
	}
}

// logLoss logs a loss.
func logLoss(env *session.Env, l broker.Loss) {
	args := []any{"since", l.Since, "until", l.Until, "cause", l.Cause}
	if l.Messages > 0 {
		args = append(args, "messages", l.Messages)
	}
	if l.Channels != nil {
		args = append(args, "channels", len(l.Channels))
	}
	env.Log.Warn("messages of other nodes may be missing", args...)
}

// A lossNotifier calls a function for each loss, one call at a time, on a goroutine that exists
// only while a loss is pending. Losses that are added during a call, or within the pause after it,
// are merged into one. So the function may be slow, and costs neither the broker time nor much
// memory.
type lossNotifier struct {
	// Set when made, then read-only.
	notify   func(broker.Loss)
	pause    time.Duration   // after each call
	stopping <-chan struct{} // once closed, there are no pauses

	goroutine sync.WaitGroup // runs run; added to under mu

	mu      sync.Mutex   // guards the fields below; no other lock is taken under it
	pending *broker.Loss // nil for none; its Channels are a channelSet that the notifier owns
	running bool         // the goroutine exists
}

// add queues a loss. It never blocks. It must not be called after wait.
func (n *lossNotifier) add(l broker.Loss) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pending == nil {
		l.Channels = channelSet(l.Channels) // a copy: all notifiers get the same slice
	} else {
		l = mergeLosses(*n.pending, l)
	}
	n.pending = &l
	if !n.running {
		n.startLocked()
	}
}

// startLocked starts the goroutine.
func (n *lossNotifier) startLocked() {
	n.running = true
	callback.Go(&n.goroutine, n.run) // ends when no loss is pending; wait waits for it
}

// wait blocks until notify has returned for all losses, however long that takes. If stopping is not
// closed, this includes the pauses.
func (n *lossNotifier) wait() { n.goroutine.Wait() }

// run calls notify until no loss is pending. After a notify that called runtime.Goexit it continues
// with the next loss.
func (n *lossNotifier) run(bool) {
	for l := n.next(); l != nil; l = n.next() {
		n.notify(*l)
		if n.pause > 0 {
			pause := time.NewTimer(n.pause)
			select {
			case <-pause.C:
			case <-n.stopping:
			}
			pause.Stop()
		}
	}
}

// next returns the pending loss. If there is none it returns nil, and the goroutine counts as
// ended.
func (n *lossNotifier) next() *broker.Loss {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.pending
	n.pending = nil
	n.running = l != nil
	return l
}

// channelSet returns a sorted copy of channels without duplicates. Nil, which stands for any
// channel, stays nil.
func channelSet(channels []string) []string {
	if channels == nil {
		return nil
	}
	set := append([]string{}, channels...)
	slices.Sort(set)
	return slices.Compact(set)
}

// addChannels returns set with channels added. It may change set. Above maxLostChannels it returns
// nil, which stands for any channel.
func addChannels(set, channels []string) []string {
	switch {
	case set == nil || channels == nil || len(channels) > maxLostChannels:
		return nil
	case len(channels) > maxInserts:
		set = channelSet(slices.Concat(set, channels))
	default:
		for _, name := range channels {
			if at, found := slices.BinarySearch(set, name); !found {
				set = slices.Insert(set, at, name)
			}
		}
	}
	if len(set) > maxLostChannels {
		return nil
	}
	return set
}

// mergeLosses merges two losses into one. b was reported after a. The channels of a are a set,
// which mergeLosses may change.
func mergeLosses(a, b broker.Loss) broker.Loss {
	m := broker.Loss{Messages: a.Messages + b.Messages, Since: a.Since, Until: a.Until, Cause: b.Cause}
	if a.Messages == 0 || b.Messages == 0 {
		m.Messages = 0 // the number is not known
	}
	if b.Since.Before(m.Since) {
		m.Since = b.Since
	}
	if b.Until.After(m.Until) {
		m.Until = b.Until
	}
	m.Channels = addChannels(a.Channels, b.Channels)
	return m
}
