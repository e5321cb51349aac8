package redis

import "sync/atomic"

const (
	// chunkSize is what one read may bring, in bytes. Messages stay where they were read until they are delivered.
	chunkSize = 64 << 10

	// spareChunks is how many chunks are kept for reuse.
	spareChunks = 16
)

// A chunk is memory that was read into. It is used again when its messages have been delivered.
type chunk struct {
	buf  []byte
	refs atomic.Int32 // messages in it that wait, and the room while it is read into
	free chan<- *chunk
}

func (c *chunk) release() {
	if c == nil || c.refs.Add(-1) > 0 || len(c.buf) != chunkSize {
		return
	}
	select {
	case c.free <- c:
	default: // enough are kept
	}
}

// A room is where one connection is read into. Owned by the goroutine that reads.
type room struct {
	chunk *chunk
	at    int // chunk.buf[at:end] has been read and not yet been looked at
	end   int
	spare chan *chunk
}

// space is what to read into, behind what is left.
func (r *room) space() []byte {
	if r.chunk == nil || r.end == len(r.chunk.buf) {
		next := r.next(r.end - r.at)
		if r.chunk != nil {
			copy(next.buf, r.chunk.buf[r.at:r.end])
			r.chunk.release()
		}
		r.chunk, r.at, r.end = next, 0, r.end-r.at
	}
	return r.chunk.buf[r.end:]
}

// next is a chunk for what is left and more.
func (r *room) next(rest int) *chunk {
	if rest < chunkSize/2 {
		select {
		case c := <-r.spare:
			c.refs.Store(1)
			return c
		default:
		}
		rest = chunkSize / 2
	}
	c := &chunk{buf: make([]byte, 2*rest), free: r.spare}
	c.refs.Store(1)
	return c
}
