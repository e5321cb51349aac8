package redis

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
)

const (
	// chunkSize is what one read may bring, in bytes. Messages stay where they were read until they are delivered.
	chunkSize = 64 << 10

	// spareChunks is how many chunks are kept for reuse.
	spareChunks = 16

	// What a server may say besides messages: lengths in a reply, elements of one, and bytes of a line. A Cluster of a
	// thousand nodes, and the confirmation of the longest channel, are well within.
	replyMax    = 16 << 20
	elementsMax = 1 << 20
	lineMax     = 64 << 10

	// bulkMax is the longest message that Redis lets anyone publish (proto-max-bulk-len).
	bulkMax = 1 << 30
)

// errGarbage says that what came is not RESP3: it is no Redis, or something has changed it on the way.
var errGarbage = errors.New("what comes is not what a Redis says")

// A chunk is memory that was read into. It is used again when its messages have been delivered.
type chunk struct {
	buf  []byte
	refs atomic.Int32 // messages in it that wait, and the sieve while it reads into it
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

// A sieve stands between the socket of a subscription and rueidis. It takes out the messages, which rueidis would copy
// four times over, and lets everything else pass: greetings, replies, confirmations. What is not RESP3 ends the
// connection here, and a message that is too large is passed over without being kept. Owned by the goroutine that reads.
//
//	>3 $7 message $n CHANNEL $m PAYLOAD              taken out
//	>4 $8 pmessage $n PATTERN $n CHANNEL $m PAYLOAD  taken out
//	anything else                                    passed on
type sieve struct {
	net.Conn
	message func(incoming)
	reading func() // about to read: all that came has been handed over
	max     int    // bytes of a payload

	chunk *chunk
	at    int // chunk.buf[at:end] has been read and not yet been looked at
	end   int
	spare chan *chunk

	pass []byte // for rueidis; aliases the chunk
	left int    // elements of a reply that are still to pass
	body int    // bytes of one that are, its line end included
	skip int    // bytes to pass over
	rest int    // strings of the same message that are to be passed over behind them
	over int    // the length of all that is passed over: told when it is through
}

func newSieve(c net.Conn, h *hooks) *sieve {
	return &sieve{Conn: c, message: h.message, reading: h.reading, max: h.max, spare: make(chan *chunk, spareChunks)}
}

// Read gives rueidis what is for it.
func (s *sieve) Read(p []byte) (int, error) {
	for len(s.pass) == 0 {
		if err := s.look(); err != nil {
			return 0, err
		}
		if len(s.pass) > 0 {
			break
		}
		s.reading()
		s.makeRoom()
		n, err := s.Conn.Read(s.chunk.buf[s.end:])
		if s.end += n; n == 0 && err != nil {
			return 0, err
		}
	}
	n := copy(p, s.pass)
	s.pass = s.pass[n:]
	return n, nil
}

// makeRoom sees to it that there is room to read into, behind what is left.
func (s *sieve) makeRoom() {
	rest := 0
	if s.chunk != nil {
		if s.end < len(s.chunk.buf) {
			return
		}
		rest = s.end - s.at
	}
	next := s.next(rest)
	if s.chunk != nil {
		copy(next.buf, s.chunk.buf[s.at:s.end])
		s.chunk.release()
	}
	s.chunk, s.at, s.end = next, 0, rest
}

// next is a chunk for what is left and more.
func (s *sieve) next(rest int) *chunk {
	if rest < chunkSize/2 {
		select {
		case c := <-s.spare:
			c.refs.Store(1)
			return c
		default:
		}
		rest = chunkSize / 2
	}
	c := &chunk{buf: make([]byte, 2*rest), free: s.spare}
	c.refs.Store(1)
	return c
}

// look takes out messages until something is to pass, or what was read ends within something.
func (s *sieve) look() error {
	for s.at < s.end && len(s.pass) == 0 {
		data := s.chunk.buf[s.at:s.end]
		switch {
		case s.skip > 0:
			n := min(s.skip, len(data))
			s.at += n
			if s.skip -= n; s.skip == 0 && s.rest == 0 {
				s.message(incoming{size: s.over})
			}
		case s.rest > 0:
			size, body, err := bulk(data, 0, bulkMax)
			if err != nil || body == 0 {
				return err
			}
			s.at += body
			s.passOver(size, s.rest-1)
		case s.left > 0 || s.body > 0:
			return s.passOn(data)
		default:
			n, err := s.one(data)
			if n == 0 || err != nil {
				return err
			}
			s.at += n
		}
	}
	return nil
}

var messageHeads = []struct {
	head    []byte
	strings int // in all behind the head
}{
	{[]byte(">3\r\n$7\r\nmessage\r\n"), 2},
	{[]byte(">4\r\n$8\r\npmessage\r\n"), 3},
}

// one takes out the message at the start of data, and returns how long it was: 0 if the rest of it has not come. What is
// no message is the beginning of something to pass.
func (s *sieve) one(data []byte) (n int, err error) {
	if !isType(data[0]) {
		return 0, fmt.Errorf("%w: it begins with %q", errGarbage, data[:1])
	}
	for _, kind := range messageHeads {
		if len(data) < len(kind.head) {
			if bytes.HasPrefix(kind.head, data) {
				return 0, nil // may become one
			}
			continue
		}
		if bytes.HasPrefix(data, kind.head) {
			return s.take(data, len(kind.head), kind.strings)
		}
	}
	s.left = 1
	return 0, s.passOn(data)
}

// take takes out a message of which the head has been read: a pattern perhaps, the channel, the payload.
func (s *sieve) take(data []byte, at, strings int) (n int, err error) {
	var channel []byte
	for ; strings > 1; strings-- {
		size, body, err := bulk(data, at, bulkMax)
		if err != nil || body == 0 {
			return 0, err
		}
		if size > lineMax { // patterns match what anyone cares to name a channel
			s.over = 0
			s.passOver(size, strings-1)
			return body, nil
		}
		if body+size+2 > len(data) {
			return 0, nil
		}
		channel = data[body : body+size]
		at = body + size + 2
	}
	size, body, err := bulk(data, at, bulkMax)
	if err != nil || body == 0 {
		return 0, err
	}
	if size > s.max {
		s.over = 0
		s.passOver(size, 0)
		return body, nil
	}
	if body+size+2 > len(data) {
		return 0, nil
	}
	s.chunk.refs.Add(1)
	s.message(incoming{channel: asString(channel), payload: asString(data[body : body+size]), size: size, chunk: s.chunk})
	return body + size + 2, nil
}

// passOver has a string of which the length has been read passed over, and then the rest of its message.
func (s *sieve) passOver(size, rest int) {
	s.skip, s.rest = size+2, rest
	s.over += size
}

// bulk reads the length of a string at data[at:], and returns it and where its bytes begin: 0 if the rest has not come.
func bulk(data []byte, at, most int) (size, body int, err error) {
	line, next, err := lineAt(data, at)
	if err != nil || next == 0 {
		return 0, 0, err
	}
	if line[0] != '$' {
		return 0, 0, fmt.Errorf("%w: a message without %q", errGarbage, '$')
	}
	if size, err = number(line[1:], most); err != nil {
		return 0, 0, err
	}
	return size, next, nil
}

// lineAt is the line at data[at:], without its end, and where the next one begins: 0 if the rest of it has not come.
func lineAt(data []byte, at int) (line []byte, next int, err error) {
	i := bytes.IndexByte(data[at:], '\n')
	switch {
	case i < 0 && len(data)-at > lineMax, i > lineMax:
		return nil, 0, fmt.Errorf("%w: a line of more than %d bytes", errGarbage, lineMax)
	case i < 0:
		return nil, 0, nil
	case i < 2 || data[at+i-1] != '\r':
		return nil, 0, fmt.Errorf("%w: %.20q", errGarbage, data[at:at+i+1])
	}
	return data[at : at+i-1], at + i + 1, nil
}

// number reads a length, from 0 to most.
func number(digits []byte, most int) (n int, err error) {
	for _, c := range digits {
		if c < '0' || c > '9' || n > most {
			n = most + 1
			break
		}
		n = 10*n + int(c-'0')
	}
	if len(digits) == 0 || n > most {
		return 0, fmt.Errorf("%w: a length of %.20q", errGarbage, digits)
	}
	return n, nil
}

// passOn lets pass what is complete at the start of data, and belongs to one reply.
func (s *sieve) passOn(data []byte) error {
	n := 0
	for s.left > 0 || s.body > 0 {
		if s.body > 0 {
			some := min(s.body, len(data)-n)
			s.body -= some
			n += some
			if s.body > 0 {
				break
			}
			continue
		}
		line, next, err := lineAt(data, n)
		if err != nil {
			return err
		}
		if next == 0 {
			break
		}
		if err := s.element(line); err != nil {
			return err
		}
		n = next
	}
	s.pass = data[:n]
	s.at += n
	return nil
}

// element counts what a line announces.
func (s *sieve) element(line []byte) (err error) {
	s.left--
	n := 0
	switch line[0] {
	case '+', '-', ':', '_', '#', ',', '(': // that is all
		return nil
	case '$', '!', '=': // a string
		if string(line[1:]) == "-1" {
			return nil
		}
		if n, err = number(line[1:], replyMax); err == nil {
			s.body = n + 2
		}
		return err
	case '*', '~', '>', '%', '|': // several values
		if string(line[1:]) == "-1" {
			return nil
		}
		if n, err = number(line[1:], elementsMax); err != nil {
			return err
		}
		if line[0] == '%' || line[0] == '|' {
			n *= 2
		}
		if line[0] == '|' {
			n++ // it stands before a value
		}
		if s.left += n; s.left > elementsMax {
			return fmt.Errorf("%w: a reply of more than %d values", errGarbage, elementsMax)
		}
		return nil
	}
	return fmt.Errorf("%w: %.20q", errGarbage, line)
}
