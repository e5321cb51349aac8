package session

import (
	"context"
	"sync"
)

// Interest tells the broker which channels this node needs.
type Interest interface {
	// Hold returns once a message that is published from now on to any of the channels will arrive. After an error
	// nothing more is held than before.
	Hold(ctx context.Context, channels ...string) error
	// Release takes back one Hold of each channel.
	Release(channels ...string)
}

// holds are what all sessions together hold of an Interest. A client is not kept out because the broker can't hold its
// channels, so there are fewer holds of a channel than members: those that are missing are counted here, and are the
// first to be released, lest a client that leaves takes from others what it never had.
type holds struct {
	mu      sync.Mutex // guards missing; innermost
	missing map[string]int
}

// hold is in.Hold; what fails is missing.
func (h *holds) hold(ctx context.Context, in Interest, channels []string) error {
	err := in.Hold(ctx, channels...)
	if err == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.missing == nil {
		h.missing = make(map[string]int)
	}
	for _, c := range channels {
		h.missing[c]++
	}
	return err
}

// release is in.Release of those of the channels that are not missing.
func (h *holds) release(in Interest, channels []string) {
	if channels = h.settle(channels); len(channels) > 0 {
		in.Release(channels...)
	}
}

// settle takes what is missing off, and returns the rest.
func (h *holds) settle(channels []string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.missing) == 0 {
		return channels
	}
	var held []string
	for _, c := range channels {
		switch n := h.missing[c]; n {
		case 0:
			held = append(held, c)
		case 1:
			delete(h.missing, c)
		default:
			h.missing[c] = n - 1
		}
	}
	return held
}
