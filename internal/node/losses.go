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

	// lostChannelsMax is how many channels are remembered of losses that wait; with more, any may be concerned.
	lostChannelsMax = 4096
)

// A lossReader is told of losses: one call at a time, on a goroutine that exists only while there is something to tell.
// Losses that come during a call, or within the pause after it, are told as one: so a reader may take its time, and
// neither the broker nor memory notices.
type lossReader struct {
	// Set when made, then read-only.
	tell  func(broker.Loss)
	pause time.Duration
	ended <-chan struct{} // no pauses from then on

	done sync.WaitGroup // the goroutine; added to under mu

	mu      sync.Mutex   // guards the fields below; innermost
	waiting *broker.Loss // not told yet, its Channels a set of the reader's own (channelSet); nil for nothing
	busy    bool         // the goroutine is there
}

// put never blocks. Not to be called after wait.
func (r *lossReader) put(l broker.Loss) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		l.Channels = channelSet(l.Channels) // a copy: all readers get the same slice
	} else {
		l = merge(*r.waiting, l)
	}
	r.waiting = &l
	if !r.busy {
		r.startLocked()
	}
}

func (r *lossReader) startLocked() {
	r.busy = true
	r.done.Go(r.run) // ends when nothing is left to tell; wait waits for it
}

// wait blocks until all is told, for as long as that takes. ended must be closed, or the pauses are waited for too.
func (r *lossReader) wait() { r.done.Wait() }

func (r *lossReader) run() {
	cutShort := true
	defer func() {
		if cutShort {
			r.exited()
		}
	}()
	for l := r.take(); l != nil; l = r.take() {
		r.tell(*l)
		if r.pause > 0 {
			pause := time.NewTimer(r.pause)
			select {
			case <-pause.C:
			case <-r.ended:
			}
			pause.Stop()
		}
	}
	cutShort = false // from here on there may be another goroutine
}

// take is the goroutine's: without a loss it has ended.
func (r *lossReader) take() *broker.Loss {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.waiting
	r.waiting = nil
	r.busy = l != nil
	return l
}

// exited has another goroutine go on, if a callback has called runtime.Goexit.
func (r *lossReader) exited() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting != nil {
		r.startLocked()
	} else {
		r.busy = false
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
	case set == nil || channels == nil || len(channels) > lostChannelsMax:
		return nil
	case len(channels) > fewChannels:
		set = channelSet(slices.Concat(set, channels))
	default:
		for _, name := range channels {
			if at, found := slices.BinarySearch(set, name); !found {
				set = slices.Insert(set, at, name)
			}
		}
	}
	if len(set) > lostChannelsMax {
		return nil
	}
	return set
}

// fewChannels are added one by one: a flood reports a loss for each message, which names one channel, mostly a known one.
const fewChannels = 8

// merge makes one loss of two, of which b was reported later. The channels of a are a set, which merge may change.
func merge(a, b broker.Loss) broker.Loss {
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
