package session

import "context"

// Interest tells the broker which channels this node needs.
type Interest interface {
	// Hold returns once a message that is published from now on to any of the channels will arrive, or with an error when
	// nobody can say so yet, which it has then seen to being known. The channels are held either way.
	Hold(ctx context.Context, channels ...string) error
	// Release takes back one Hold of each channel.
	Release(channels ...string)
}
