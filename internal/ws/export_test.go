package ws

// Doors for the tests and benchmarks of this package.

var Mask = mask

// Held is how many bytes of payload buffers an Endpoint holds, -1 when it holds no state at all.
func Held(e *Endpoint) int {
	if e.part == nil {
		return -1
	}
	return cap(e.part.buf) + cap(e.part.controlPayload)
}

// Inflate inflates one message to at most limit bytes, and returns how large the buffer for it became.
func Inflate(payload []byte, limit int) (out []byte, held int, err error) {
	f := new(inflater)
	out, err = f.inflate(payload, limit, nil)
	return out, cap(f.out), err
}
