package epoll

import (
	"io"
	"os"

	"github.com/hearthws/hearth/internal/transport/outqueue"
	"golang.org/x/sys/unix"
)

// flush writes what waits for c until it is all written or the socket takes no more, and then goes on with CloseAfterFlush.
func (l *loop) flush(c *connection) {
	if c.is(closing) {
		return
	}
	for c.out != nil {
		n, of, errno := l.send(c)
		if errno != 0 && errno != unix.EAGAIN {
			l.lose(c, os.NewSyscallError("send", errno))
			return
		}
		c.out.Advance(n)
		c.owes(c.out.Len())
		if n < of {
			c.state |= blocked
			l.watch(c)
			return
		}
		if c.out.Len() == 0 {
			l.recycle(c)
		}
	}
	c.state &^= blocked
	l.watch(c)
	if c.is(finishing) && !c.is(shut) {
		l.shut(c)
	}
}

// send writes once. It returns how much was written, and of how much.
func (l *loop) send(c *connection) (n, of int, errno unix.Errno) {
	if refs := c.out.Refs(); refs > 1 && c.out.Len() >= refs*vectorFrom {
		l.vectors.pieces = c.out.Vector(l.vectors.pieces, maxVectors)
		return l.vectors.send(c.fd)
	}
	p := c.out.Next(l.scratch)
	n, errno = send(c.fd, p)
	return n, len(p), errno
}

// shut is the end of CloseAfterFlush: all is written.
func (l *loop) shut(c *connection) {
	c.state |= shut
	if c.is(ended) || unix.Shutdown(int(c.fd), unix.SHUT_WR) != nil { // an error: the peer has gone already
		l.drop(c, io.EOF)
	}
}

// queue returns an empty queue.
func (l *loop) queue() *outqueue.Queue {
	if n := len(l.queues); n > 0 {
		q := l.queues[n-1]
		l.queues = l.queues[:n-1]
		return q
	}
	return new(outqueue.Queue)
}

// recycle takes the queue from c.
func (l *loop) recycle(c *connection) {
	c.out.Reset()
	if len(l.queues) < spareMax {
		l.queues = append(l.queues, c.out)
	}
	c.out = nil
	c.owes(0)
	l.owing.Add(-1)
}
