package node

import (
	"slices"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
)

const (
	// resyncPause is the time from one resync to the next: a client that is told to load everything afresh should
	// not be told again before it has.
	resyncPause = time.Second

	// lossLogPause is the time between two lines in the log about losses.
	lossLogPause = 10 * time.Second

	// maxLostChannels is how many channels are remembered of losses that wait; with more, any may be concerned.
	maxLostChannels = 4096
)

// A lossNotifier is told of losses: one call at a time, on a goroutine that exists only while there is something to tell.
// Losses that come during a call, or within the pause after it, are told as one: so a reader may take its time, and
// neither the broker nor memory notices.
type lossNotifier struct {
	// Set when made, then read-only.
	notify   func(broker.Loss)
	pause    time.Duration
	stopping <-chan struct{} // no pauses from then on

	goroutine sync.WaitGroup // the goroutine; added to under mu

	mu      sync.Mutex   // guards the fields below; innermost
	pending *broker.Loss // not told yet, its Channels a set of the reader's own (channelSet); nil for nothing
	running bool         // the goroutine is there
}

// add never blocks. Not to be called after wait.
func (r *lossNotifier) add(l broker.Loss) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		l.Channels = channelSet(l.Channels) // a copy: all readers get the same slice
	} else {
		l = mergeLosses(*r.pending, l)
	}
	r.pending = &l
	if !r.running {
		r.startLocked()
	}
}

func (r *lossNotifier) startLocked() {
	r.running = true
	r.goroutine.Go(r.run) // ends when nothing is left to tell; wait waits for it
}

// wait blocks until all is told, for as long as that takes. ended must be closed, or the pauses are waited for too.
func (r *lossNotifier) wait() { r.goroutine.Wait() }

func (r *lossNotifier) run() {
	cutShort := true
	defer func() {
		if cutShort {
			r.restart()
		}
	}()
	for l := r.next(); l != nil; l = r.next() {
		r.notify(*l)
		if r.pause > 0 {
			pause := time.NewTimer(r.pause)
			select {
			case <-pause.C:
			case <-r.stopping:
			}
			pause.Stop()
		}
	}
	cutShort = false // from here on there may be another goroutine
}

// next is the goroutine's: without a loss it has ended.
func (r *lossNotifier) next() *broker.Loss {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.pending
	r.pending = nil
	r.running = l != nil
	return l
}

// restart has another goroutine go on, if a callback has called runtime.Goexit.
func (r *lossNotifier) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending != nil {
		r.startLocked()
	} else {
		r.running = false
	}
}

// channelSet is a copy of channels, sorted and each once; nil, which stands for any channel, stays nil.
func channelSet(channels []string) []string {
	if channels == nil {
		return nil
	}
	set := append([]string{}, channels...)
	slices.Sort(set)
	return slices.Compact(set)
}

// addChannels adds channels to a set, which it may change. With too many it is nil.
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

// maxInserts are added one by one: a flood reports a loss for each message, which names one channel, mostly a known one.
const maxInserts = 8

// mergeLosses makes one loss of two, of which b was reported later. The channels of a are a set, which merge may change.
func mergeLosses(a, b broker.Loss) broker.Loss {
	m := broker.Loss{Messages: a.Messages + b.Messages, Since: a.Since, Until: a.Until, Cause: b.Cause}
	if a.Messages == 0 || b.Messages == 0 {
		m.Messages = 0 // nobody knows
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
