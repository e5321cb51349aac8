package ws

// Access to internals for the tests and benchmarks of this package.

var Mask = mask

// Held returns how many bytes of payload buffers an Endpoint holds, -1 if it holds no state at all.
func Held(e *Endpoint) int {
	if e.partial == nil {
		return -1
	}
	return cap(e.partial.buf) + cap(e.partial.controlPayload)
}

// Inflate inflates one message to at most limit bytes, and returns the final size of its buffer.
func Inflate(payload []byte, limit int) (out []byte, held int, err error) {
	f := new(inflater)
	out, err = f.inflate(payload, limit, nil)
	return out, cap(f.out), err
}
