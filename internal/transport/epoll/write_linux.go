package epoll

import (
	"io"
	"os"

	"github.com/hearthws/hearth/internal/transport/outqueue"
	"golang.org/x/sys/unix"
)

// flush writes the queue of c until it is empty or the socket takes no more. Once it is empty,
// flush shuts down the writing side if CloseAfterFlush was called.
func (l *loop) flush(c *connection) {
	if c.is(toBeClosed) {
		return
	}
	for c.out != nil {
		n, tried, errno := l.send(c)
		if errno != 0 && errno != unix.EAGAIN {
			l.fail(c, os.NewSyscallError("send", errno))
			return
		}
		c.out.Advance(n)
		c.setBuffered(c.out.Len())
		if n < tried {
			c.state |= blocked
			l.updateInterest(c)
			return
		}
		if c.out.Len() == 0 {
			l.recycle(c)
		}
	}
	c.state &^= blocked
	l.updateInterest(c)
	if c.is(closeRequested) && !c.is(writeShut) {
		l.shutdownWrite(c)
	}
}

// send passes bytes of the queue of c to the socket, in one system call. It returns the number of
// bytes that the socket has taken, and the number of bytes that it was given. Small pieces are
// first joined in l.scratch, because a copy then costs less than one more piece in the call.
func (l *loop) send(c *connection) (n, tried int, errno unix.Errno) {
	if refs := c.out.Refs(); refs > 1 && c.out.Len() >= refs*minGather {
		l.gather.pieces = c.out.Vector(l.gather.pieces, maxIovecs)
		return l.gather.send(c.fd)
	}
	p := c.out.Next(l.scratch)
	n, errno = send(c.fd, p)
	return n, len(p), errno
}

// shutdownWrite ends a CloseAfterFlush whose bytes are all written.
func (l *loop) shutdownWrite(c *connection) {
	c.state |= writeShut
	// Shutdown fails if the peer has closed the connection.
	if c.is(peerClosed) || unix.Shutdown(int(c.fd), unix.SHUT_WR) != nil {
		l.closeLater(c, io.EOF)
	}
}

// newQueue returns an empty queue.
func (l *loop) newQueue() *outqueue.Queue {
	if n := len(l.freeQueues); n > 0 {
		q := l.freeQueues[n-1]
		l.freeQueues = l.freeQueues[:n-1]
		return q
	}
	return new(outqueue.Queue)
}

// recycle takes the queue from c and keeps it for another connection.
func (l *loop) recycle(c *connection) {
	c.out.Reset()
	if len(l.freeQueues) < maxSpare {
		l.freeQueues = append(l.freeQueues, c.out)
	}
	c.out = nil
	c.setBuffered(0)
	l.backlogged.Add(-1)
}
