package redis

import "net"

// A guard is a connection from which nothing comes that its reader can't bear. rueidis believes what it is told: it
// allocates what a length promises, descends as deep as arrays are nested, and panics, on a goroutine of its own, at a
// reply that it has not asked for. So what comes is looked at first, and what Redis would not send ends the connection
// with an error. On a connection that subscribes a sieve has taken out the messages before.
type guard struct {
	net.Conn
	asked asked

	in    inbound // owned by the goroutine that reads, as are the fields below
	held  []byte  // has come, and is not to be passed on before more has
	small []byte  // what a reader with little room gets, for which held leaves none
	err   error   // what came was not from a Redis

	out outbound // owned by the goroutine that writes
}

func newGuard(conn net.Conn) *guard {
	g := &guard{Conn: conn}
	g.in.asked, g.out.asked = &g.asked, &g.asked
	return g
}

// Write notes which commands go out, before there can be a reply.
func (g *guard) Write(p []byte) (int, error) {
	g.out.note(p)
	return g.Conn.Write(p)
}

func (g *guard) Read(p []byte) (int, error) {
	for len(g.small) == 0 {
		into := p
		if len(p) <= 2*len(g.held) {
			into = make([]byte, 2*maxLine) // of which held is less than a half
		}
		n, err := g.read(into)
		if len(p) < len(into) {
			g.small, n = into[:n], 0
		}
		if err != nil && len(g.small) == 0 || n > 0 {
			return n, err
		}
	}
	n := copy(p, g.small)
	g.small = g.small[n:]
	return n, nil // an error that there was comes again
}

// read reads into p, which has room for more than is held. There may be nothing to pass on.
func (g *guard) read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n := copy(p, g.held)
	more, err := g.Conn.Read(p[n:])
	good, rest, bad := g.in.pass(p[:n+more])
	g.held = append(g.held[:0], p[rest:n+more]...)
	if bad != nil {
		g.err, err = bad, bad
		_ = g.Conn.Close() // it is of no use any more
	}
	return good, err
}
