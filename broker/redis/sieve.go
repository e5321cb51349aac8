package redis

import "bytes"

const (
	// maxBulk is the longest message that Redis lets anyone publish (proto-max-bulk-len).
	maxBulk = 1 << 30

	// maxChannel is the longest name of a channel of which messages are held, in bytes. The longest of ours are far below.
	maxChannel = 64 << 10
)

// A sieve takes messages out of what comes from Redis, wherever a value may begin, without a copy. One that is too large is
// passed over without being kept.
//
//	>3 $7 message $n CHANNEL $m PAYLOAD
//	>4 $8 pmessage $n PATTERN $n CHANNEL $m PAYLOAD
type sieve struct {
	message func(incoming)
	max     int // bytes of a payload

	skip int // bytes to pass over
	rest int // strings of the same message that are to be passed over behind them
	over int // the length of all that is passed over: told when it is through
}

var messageHeads = []struct {
	head    []byte
	strings int // in all behind the head
}{
	{[]byte(">3\r\n$7\r\nmessage\r\n"), 2},
	{[]byte(">4\r\n$8\r\npmessage\r\n"), 3},
}

// take takes out the message at the start of data, which is in c, or what has come of one to pass over. It returns how
// long that was, 0 if more must come first, and whether it is a message at all.
func (s *sieve) take(data []byte, c *chunk) (n int, message bool, err error) {
	switch {
	case s.skip > 0:
		n = min(s.skip, len(data))
		if s.skip -= n; s.skip == 0 && s.rest == 0 {
			s.message(incoming{size: s.over})
		}
		return n, true, nil
	case s.rest > 0:
		size, n, err := stringIn(data, 0)
		if n > 0 {
			s.passOver(size, s.rest-1)
		}
		return n, true, err
	}
	for _, kind := range messageHeads {
		if bytes.HasPrefix(data, kind.head) {
			n, err = s.one(data, len(kind.head), kind.strings, c)
			return n, true, err
		}
		if bytes.HasPrefix(kind.head, data) { // may become one
			return 0, true, nil
		}
	}
	return 0, false, nil
}

// one takes out a message of which the head has been read: a pattern perhaps, the channel, the payload.
func (s *sieve) one(data []byte, at, strings int, c *chunk) (n int, err error) {
	var channel []byte
	for ; strings > 0; strings-- {
		most := maxChannel // patterns match what anyone cares to name a channel
		if strings == 1 {
			most = s.max
		}
		size, body, err := stringIn(data, at)
		if err != nil || body == 0 {
			return 0, err
		}
		if size > most {
			s.over = 0
			s.passOver(size, strings-1)
			return body, nil
		}
		if at = body + size + len(crlf); at > len(data) {
			return 0, nil
		}
		if strings == 1 {
			c.refs.Add(1)
			s.message(incoming{channel: asString(channel), payload: asString(data[body : body+size]), size: size, chunk: c})
		}
		channel = data[body : body+size]
	}
	return at, nil
}

// passOver has a string of which the length has been read passed over, and then the rest of its message.
func (s *sieve) passOver(size, rest int) {
	s.skip, s.rest = size+len(crlf), rest
	s.over += size
}

// stringIn reads the length of a string at data[at:], and returns it and where its bytes begin: 0 if the rest has not come.
func stringIn(data []byte, at int) (size, body int, err error) {
	n, err := lineOf(data[at:])
	if err != nil || n == 0 {
		return 0, 0, err
	}
	if data[at] != '$' {
		return 0, 0, notRedis("a message without %q", '$')
	}
	size, err = number(data[at+1:at+n-len(crlf)], maxBulk)
	return size, at + n, err
}
