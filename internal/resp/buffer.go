package resp

import (
	"sync/atomic"
	"unsafe"
)

const (
	// BufferSize is the size of a Buffer, in bytes. Larger ones exist only for larger messages.
	BufferSize = 64 << 10

	// spareBuffers is how many buffers a connection keeps for reuse.
	spareBuffers = 16
)

// A Buffer is memory that a connection was read into. Messages stay in it until they are released;
// then it is used again.
type Buffer struct {
	data  []byte
	refs  atomic.Int32 // unreleased messages in it, and the reader while it reads into it
	spare chan<- *Buffer
}

// NewBuffer makes a buffer with one reference. The last Release sends it to spare if its size is
// BufferSize and spare has space.
func NewBuffer(size int, spare chan<- *Buffer) *Buffer {
	b := &Buffer{data: make([]byte, size), spare: spare}
	b.refs.Store(1)
	return b
}

// Size returns how much memory the buffer keeps, in bytes.
func (b *Buffer) Size() int { return len(b.data) }

// Release gives up one reference. A nil buffer has none. Any goroutine.
func (b *Buffer) Release() {
	if b == nil || b.refs.Add(-1) > 0 || len(b.data) != BufferSize {
		return
	}
	select {
	case b.spare <- b:
	default: // enough are kept
	}
}

// A readBuffer is the part of a reader that holds received bytes. Owned by the reading goroutine.
type readBuffer struct {
	buf   *Buffer // nil before the first read
	at    int     // buf.data[at:end] is unread: received and not parsed
	end   int
	spare chan *Buffer
}

// unread returns the bytes that have been received and not parsed. They are valid until the next
// call of writable.
func (b *readBuffer) unread() []byte {
	if b.buf == nil {
		return nil
	}
	return b.buf.data[b.at:b.end]
}

// writable returns the memory to read into next, behind the unread bytes. It moves these to another
// buffer if the current one is full, because messages may refer to it.
func (b *readBuffer) writable() []byte {
	if b.buf == nil || b.end == len(b.buf.data) {
		next := b.nextBuffer(b.end - b.at)
		copy(next.data, b.unread())
		b.buf.Release()
		b.buf, b.at, b.end = next, 0, b.end-b.at
	}
	return b.buf.data[b.end:]
}

// nextBuffer returns a buffer for the given number of unread bytes and at least as many more.
func (b *readBuffer) nextBuffer(unread int) *Buffer {
	if unread < BufferSize/2 {
		select {
		case buf := <-b.spare:
			buf.refs.Store(1)
			return buf
		default:
		}
		unread = BufferSize / 2
	}
	return NewBuffer(2*unread, b.spare)
}

// asString returns a string that shares the bytes. They must not change while it is used.
func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
