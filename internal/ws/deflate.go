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
	// flushTail is the end of each compressed message, which the sender removes (RFC 7692 §7.2.1):
	// the length field of the empty stored block that a flush writes.
	flushTail = "\x00\x00\xff\xff"

	// inflateTail is appended to a message to inflate it: the flush tail, and a final empty block
	// that ends the stream.
	inflateTail = flushTail + "\x01" + flushTail

	// maxStreams is the maximum number of final blocks in a message. RFC 7692 §7.2.1 allows them
	// anywhere. After each, inflating starts again with a copy of the window, so thousands of tiny
	// blocks would cost gigabytes of copying.
	maxStreams = 16

	// window is how far back DEFLATE can refer, in bytes.
	window = 32 << 10

	// inflatePiece is the number of bytes inflated between two calls of yield.
	inflatePiece = 64 << 10

	// maxPooled is the maximum size of a buffer that returns to a pool, in bytes. It is larger than
	// a message of the default limit needs.
	maxPooled = 256 << 10

	// deflateLevel 2 of klauspost/compress is both faster and smaller than level 1, measured on
	// JSON events of 256 bytes to 100 KB (to 0.6 … 0.3 of the size, at 80 to 470 MB/s). Level 6
	// saves another 5 % for up to three times the work.
	deflateLevel = 2
)

var (
	errTooLong = errors.New("inflated message over the limit")
	errNoGain  = errors.New("compressed message is not smaller")
)

// Inflaters (about 40 KB each) and deflaters (900 KB) are pooled, so that only goroutines that
// compress or inflate at the moment have one.
var (
	inflaters = sync.Pool{New: func() any { return new(inflater) }}
	deflaters = sync.Pool{New: func() any { return new(deflater) }}
)

// InflateMessage inflates a message from DeferredHandler.Compressed, and checks that text is UTF-8.
// The caller owns the result. It fails with a *CloseError: 1009 as soon as there are more than
// limit bytes, 1007 if the payload is not DEFLATE or the text not UTF-8. It calls yield after every
// 64 KiB of output. Safe for concurrent use; it blocks only as long as yield does.
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

// An inflater inflates one message at a time. No state is kept between messages.
type inflater struct {
	flate io.ReadCloser // a flate.Resetter; reads from in
	in    bytes.Reader  // flate reads it directly, without an interface call for each byte
	src   []byte        // the message and inflateTail
	out   []byte
	yield func() // called after each piece, unless nil
}

// inflate returns the inflated payload, valid until release. It fails with 1009 as soon as there
// are more than limit bytes. It fails with 1007 if payload is not DEFLATE: the frames are valid
// then, but their content is not what was agreed.
func (f *inflater) inflate(payload []byte, limit int, yield func()) ([]byte, error) {
	f.yield = yield
	if len(payload) == 0 {
		// RFC 7692 §7.2.3.6 requires one zero byte, but some senders send an empty payload.
		return nil, nil
	}
	f.src = append(append(f.src[:0], payload...), inflateTail...)
	f.in.Reset(f.src)
	f.out = f.out[:0]
	for range maxStreams {
		// A stream after a final block may refer back across it, within the same message.
		f.reset(f.out[max(0, len(f.out)-window):])
		if err := f.stream(limit); err != nil {
			if errors.Is(err, errTooLong) {
				return nil, tooBig("message too big")
			}
			return nil, invalidPayload("compressed data is corrupt")
		}
		// In a valid message, the last final block is that of the tail, and nothing is left. If all
		// of the tail is left, the message ended with a final block of its own and without the
		// empty block that should follow. This has no other meaning, so it is accepted.
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
	// The readers of flate are Resetters, and their Reset cannot fail.
	_ = f.flate.(flate.Resetter).Reset(&f.in, dict)
}

// stream inflates up to the end of the next final block, and appends the result to out. It fails
// with errTooLong once out is longer than limit. At most one byte more than limit is inflated.
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

// release returns f to the pool, without buffers that only a large message needed.
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

// A deflater compresses one message at a time. No state is kept between messages.
type deflater struct {
	flate *flate.Writer // writes to this deflater
	out   []byte
	limit int
}

// deflate returns payload compressed as in RFC 7692 §7.2.1, valid until release. It returns
// errNoGain if the result is not shorter than limit bytes.
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

// Write receives the compressed bytes. It fails once the result cannot be shorter than the limit.
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
