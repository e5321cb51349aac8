package redis

import "net"

// A guard is a connection from which nothing comes that its reader can't bear. rueidis believes what it is told: it
// allocates what a length promises, descends as deep as arrays are nested, and panics, on a goroutine of its own, at a
// reply that it has not asked for. So what comes is looked at first, and what Redis would not send ends the connection
// with an error. On a connection that subscribes, messages are taken out on the way, which rueidis would copy four times.
//
//	                  ┌─ messages ──► sieve ────► hooks.message
//	socket ──► room ──┤
//	                  └─ all else ──► inbound ──► rueidis
type guard struct {
	net.Conn
	asked asked

	// Owned by the goroutine that reads.
	room    room
	sieve   *sieve // nil on a connection that does not subscribe
	reading func() // about to read: all that came has been handed over
	in      inbound
	pass    []byte // for rueidis; aliases room
	err     error  // what came was not from a Redis

	out outbound // owned by the goroutine that writes
}

// newGuard guards conn. With hooks it is one to subscribe.
func newGuard(conn net.Conn, h *hooks) *guard {
	g := &guard{Conn: conn, reading: func() {}, room: room{spare: make(chan *chunk, spareChunks)}}
	g.in.asked, g.out.asked = &g.asked, &g.asked
	if h != nil {
		g.sieve, g.reading = &sieve{message: h.message, max: h.max}, h.reading
	}
	return g
}

// Write notes which commands go out, before there can be a reply.
func (g *guard) Write(p []byte) (int, error) {
	g.out.note(p)
	return g.Conn.Write(p)
}

// Read gives rueidis what is for it.
func (g *guard) Read(p []byte) (int, error) {
	for g.look(); len(g.pass) == 0; g.look() {
		g.reading()
		if g.err != nil {
			return 0, g.err
		}
		n, err := g.Conn.Read(g.room.space())
		if g.room.end += n; n == 0 && err != nil {
			return 0, err
		}
	}
	n := copy(p, g.pass)
	g.pass = g.pass[n:]
	return n, nil
}

// look takes out messages until something is to pass, or what was read ends within something, or is not from a Redis.
func (g *guard) look() {
	r := &g.room
	for r.at < r.end && len(g.pass) == 0 && g.err == nil {
		data := r.chunk.buf[r.at:r.end]
		n, message := 0, false
		if g.sieve != nil && g.in.between() {
			n, message, g.err = g.sieve.take(data, r.chunk)
		}
		if !message {
			g.pass, n, g.err = g.in.pass(data)
		}
		if r.at += n; n == 0 {
			return
		}
	}
}
