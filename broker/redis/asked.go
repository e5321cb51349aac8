package redis

import (
	"bytes"
	"strings"
	"sync"

	"github.com/hearthws/hearth/internal/fifo"
)

// A question is a command that has gone out and has not been answered in full.
type question struct {
	confirmed string // what the pushes are called that confirm it, one for each channel; "" for a plain reply
	left      int    // pushes that are still to come
	channels  int
	pong      bool // it is a PING
}

// asked is what Redis has to answer, in this order: the one who writes adds, the one who reads takes away.
type asked struct {
	mu    sync.Mutex
	queue fifo.Queue[question]
}

func (a *asked) add(q question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue.Push(q)
}

// confirm takes a push that confirms a channel.
func (a *asked) confirm(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.queue.Peek()
	if q == nil || q.confirmed != name {
		return notRedis("%s, which nobody has asked for", name)
	}
	if q.left--; q.left == 0 {
		a.queue.Pop()
	}
	return nil
}

// reply takes the beginning of a value that is no push, and returns what to make of it; "" to leave it as it is.
//
// rueidis sends a PING behind each UNSUBSCRIBE, to know where the pushes end that it does not count. It takes some errors
// for the answer to that, wherever they come from, and panics at others, which a Redis does send: MISCONF when its disk
// is full, BUSY to both while a script runs. So here the PING is always answered, and the other never by such an error.
func (a *asked) reply(kind byte, text []byte) (replace string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.queue.Peek()
	switch {
	case q == nil:
		return "", notRedis("a reply to no question: %q", clip(string(kind)+string(text)))
	case q.pong && kind == '-':
		replace = "+PONG\r\n"
	case q.pong && (kind != '+' || string(text) != "PONG"):
		err = notRedis("PING was answered with %q", clip(string(kind)+string(text)))
	case q.confirmed == "":
	case kind != '-' || q.left < q.channels || string(text) == "QUEUED":
		err = notRedis("a subscription was answered with %q", clip(string(kind)+string(text)))
	case strings.HasSuffix(q.confirmed, "unsubscribe") && likePong(text):
		replace = "-ERR it is busy\r\n"
	}
	a.queue.Pop()
	return replace, err
}

// likePong reports whether rueidis takes an error for the answer to its PING.
func likePong(text []byte) bool {
	return bytes.HasPrefix(text, []byte("LOADING")) || bytes.HasPrefix(text, []byte("BUSY")) || bytes.Contains(text, []byte("'ping'")) ||
		string(text) == "PONG"
}

// outbound sees which commands go out. It trusts what it sees, which rueidis has written.
type outbound struct {
	asked *asked

	kind   byte // of the header that is being read
	number int
	args   int    // that the command has
	left   int    // of them, to come
	body   int    // bytes of one to come, with its CRLF
	name   []byte // the first
}

// note takes what is written next.
func (o *outbound) note(p []byte) {
	for len(p) > 0 {
		if o.body > 0 {
			n := min(o.body, len(p))
			if o.left == o.args {
				o.name = append(o.name, p[:n]...)
			}
			p = p[n:]
			if o.body -= n; o.body == 0 {
				o.argument()
			}
			continue
		}
		o.header(p[0])
		p = p[1:]
	}
}

// header takes one byte of a line such as *3 or $7.
func (o *outbound) header(c byte) {
	switch {
	case c >= '0' && c <= '9':
		o.number = o.number*10 + int(c-'0')
	case c == '\n' && o.kind == '*':
		o.args, o.left = o.number, o.number
	case c == '\n':
		o.body = o.number + len("\r\n")
	case c != '\r':
		o.kind, o.number = c, 0
	}
}

// argument notes that one is complete.
func (o *outbound) argument() {
	if o.left--; o.left > 0 {
		return
	}
	q := question{}
	switch string(o.name) {
	case "SUBSCRIBE\r\n":
		q.confirmed = "subscribe"
	case "PSUBSCRIBE\r\n":
		q.confirmed = "psubscribe"
	case "UNSUBSCRIBE\r\n":
		q.confirmed = "unsubscribe"
	case "PUNSUBSCRIBE\r\n":
		q.confirmed = "punsubscribe"
	case "PING\r\n":
		q.pong = true
	}
	if q.confirmed != "" {
		q.channels, q.left = o.args-1, o.args-1
	}
	o.name = o.name[:0]
	o.asked.add(q)
}
