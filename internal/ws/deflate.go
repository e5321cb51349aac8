package ws

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
)

const (
	// flushTail is what a sender cuts from the end of each compressed message (RFC 7692 §7.2.1):
	// the length of the empty stored block that a flush ends with.
	flushTail = "\x00\x00\xff\xff"

	// inflateTail is what is put back to read one: the flush tail, and a final empty block for a
	// clean end of stream.
	inflateTail = flushTail + "\x01" + flushTail

	// maxStreams is how many final blocks a message may have. RFC 7692 §7.2.1 allows them anywhere,
	// and each means to start again with a copy of the window, so that tiny ones by the thousand
	// would cost gigabytes of copying.
	maxStreams = 16

	window = 32 << 10

	// inflatePiece is how much is inflated between two calls of yield, in bytes.
	inflatePiece = 64 << 10

	// maxPooled is the longest buffer that goes back to a pool, in bytes: more than a message of
	// the default limit needs.
	maxPooled = 256 << 10

	// deflateLevel 2 is where klauspost/compress is both faster and smaller than at 1, measured on
	// JSON events of 256 bytes to 100 KB (0.6 to 0.3 of the size, at 80 to 470 MB/s); 6 saves
	// another 5 % for up to three times the work.
	deflateLevel = 2
)

var (
	errTooLong = errors.New("inflated message over the limit")
	errNoGain  = errors.New("compressed message is not smaller")
)

// Inflaters (about 40 KB each) and deflaters (900 KB) exist only while they work, one for each
// goroutine that does.
var (
	inflaters = sync.Pool{New: func() any { return new(inflater) }}
	deflaters = sync.Pool{New: func() any { return new(deflater) }}
)

// InflateMessage inflates a message that DeferredHandler.Compressed was given, and checks that text
// is UTF-8. The result is the caller's. It fails with a *CloseError: 1009 as soon as there are more
// than limit bytes, 1007 when the payload is not DEFLATE or the text not UTF-8. yield is called
// each time that another 64 KiB have been inflated. Any goroutine; blocks no longer than yield
// does.
func InflateMessage(op Opcode, payload []byte, limit int, yield func()) ([]byte, error) {
	f := inflaters.Get().(*inflater)
	defer f.release()
	out, err := f.inflate(payload, limit, yield)
	if err != nil {
		return nil, err
	}
	if op == OpText && !utf8.Valid(out) {
		return nil, errNotUTF8()
	}
	return bytes.Clone(out), nil
}

// An inflater inflates one message at a time. Nothing is carried from one to the next.
type inflater struct {
	flate io.ReadCloser // a flate.Resetter; reads in
	in    bytes.Reader  // the one reader that flate reads without going through an interface for each byte
	src   []byte        // the message and inflateTail
	out   []byte
	yield func() // called after each piece; nil: not called
}

// inflate returns payload inflated, valid until release. It fails with 1009 as soon as there are
// more than limit bytes, and with 1007 when payload is not DEFLATE: the frames are sound, what is
// in them is not what was agreed.
func (f *inflater) inflate(payload []byte, limit int, yield func()) ([]byte, error) {
	f.yield = yield
	if len(payload) == 0 {
		return nil, nil // strictly one zero byte (RFC 7692 §7.2.3.6), but some send none, and mean the same
	}
	f.src = append(append(f.src[:0], payload...), inflateTail...)
	f.in.Reset(f.src)
	f.out = f.out[:0]
	for range maxStreams {
		// A stream that follows a final block may point back over it, as long as it is the same
		// message.
		f.reset(f.out[max(0, len(f.out)-window):])
		if err := f.stream(limit); err != nil {
			if errors.Is(err, errTooLong) {
				return nil, tooBig("message too big")
			}
			return nil, invalidPayload("compressed data is corrupt")
		}
		// With all of the tail unread the message ended with a final block, without the empty block
		// that should follow. There is nothing else that it could mean.
		if left := f.in.Len(); left == 0 || left == len(inflateTail) {
			return f.out, nil
		}
	}
	return nil, invalidPayload("too many final blocks")
}

func (f *inflater) reset(dict []byte) {
	if f.flate == nil {
		f.flate = flate.NewReaderDict(&f.in, dict)
		return
	}
	// flate's readers are Resetters, and their Reset cannot fail.
	_ = f.flate.(flate.Resetter).Reset(&f.in, dict)
}

// stream appends to out up to the end of a final block, and keeps out to limit bytes, and one that
// proves the excess.
func (f *inflater) stream(limit int) error {
	for next := len(f.out) + inflatePiece; ; {
		if f.yield != nil && len(f.out) >= next {
			f.yield()
			next = len(f.out) + inflatePiece
		}
		if len(f.out) == cap(f.out) {
			size := min(max(2*cap(f.out), 4<<10), limit+1)
			f.out = append(make([]byte, 0, size), f.out...)
		}
		n, err := f.flate.Read(f.out[len(f.out):min(cap(f.out), limit+1)])
		f.out = f.out[:len(f.out)+n]
		if len(f.out) > limit {
			return errTooLong
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// release gives f back, without the buffers that only a large message needed.
func (f *inflater) release() {
	if cap(f.src) > maxPooled {
		f.src = nil
	}
	if cap(f.out) > maxPooled {
		f.out = nil
	}
	f.in.Reset(nil)
	f.yield = nil
	inflaters.Put(f)
}

// A deflater compresses one message at a time. Nothing is carried from one to the next.
type deflater struct {
	flate *flate.Writer // writes to the deflater itself
	out   []byte
	limit int
}

// deflate returns payload compressed as RFC 7692 §7.2.1 says, valid until release, or errNoGain
// when that is not less than limit bytes.
func (d *deflater) deflate(payload []byte, limit int) ([]byte, error) {
	d.out, d.limit = d.out[:0], limit+len(flushTail)
	if d.flate == nil {
		var err error
		if d.flate, err = flate.NewWriter(d, deflateLevel); err != nil {
			return nil, err
		}
	} else {
		d.flate.Reset(d)
	}
	if _, err := d.flate.Write(payload); err != nil {
		return nil, err
	}
	if err := d.flate.Flush(); err != nil {
		return nil, err
	}
	out, ok := bytes.CutSuffix(d.out, []byte(flushTail))
	if !ok || len(out) >= limit {
		return nil, errNoGain
	}
	return out, nil
}

// Write is where the compressed bytes go. It gives up once they cannot pay any more.
func (d *deflater) Write(p []byte) (int, error) {
	if len(d.out)+len(p) > d.limit {
		return 0, errNoGain
	}
	d.out = append(d.out, p...)
	return len(p), nil
}

func (d *deflater) release() {
	if cap(d.out) > maxPooled {
		d.out = nil
	}
	deflaters.Put(d)
}
