package epoll

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/hearthws/hearth/internal/transport"
	"golang.org/x/sys/unix"
)

const (
	maxAccepts  = 64                     // per listener and turn
	acceptPause = 100 * time.Millisecond // when the system has no descriptors or memory left
)

// A Listener accepts connections on the loops. Transport.Listen makes one.
type Listener struct {
	acceptors []*acceptor // one per loop
}

// An acceptor is the listening socket in one loop, which owns it.
type acceptor struct {
	loop   *loop
	id     uint64
	fd     int32
	open   func(RawConn) transport.Handler
	closed chan struct{} // closed by the loop after fd
}

// Listen makes the loops accept the connections of ln, without the goroutine, buffers and parser of
// net/http. open is called for each connection on a loop, not always that of the connection, and
// must not block. After success ln belongs to the transport, and Listener.Close or Transport.Close
// closes it. After an error it is untouched.
func (t *Transport) Listen(ln *net.TCPListener, open func(RawConn) transport.Handler) (*Listener, error) {
	if !t.beginAdopt() {
		return nil, transport.ErrClosed
	}
	defer t.adopting.Done()
	lr := &Listener{}
	for _, l := range t.loops {
		fd, err := duplicate(ln)
		if err != nil {
			for _, a := range lr.acceptors {
				_ = unix.Close(int(a.fd))
			}
			return nil, fmt.Errorf("adopt listener: %w", err)
		}
		lr.acceptors = append(lr.acceptors, &acceptor{loop: l, id: newID(t.serial.Add(1), int32(fd)), fd: int32(fd), open: open, closed: make(chan struct{})})
	}
	setAcceptedOptions(int(lr.acceptors[0].fd)) // all acceptors share one socket
	_ = ln.Close()
	for _, a := range lr.acceptors {
		a.loop.post(command{kind: listen, acceptor: a})
	}
	return lr, nil
}

// Close stops accepting and returns when the port is free. Connections stay open. It must not be
// called from a Handler or from Tick.
func (lr *Listener) Close() error {
	for _, a := range lr.acceptors {
		a.loop.post(command{kind: unlisten, acceptor: a})
	}
	for _, a := range lr.acceptors {
		<-a.closed
	}
	return nil
}

// setAcceptedOptions sets on a listening socket the options that package net sets on each
// connection. On Linux, accepted sockets inherit them. If a call fails, the system's default
// applies.
func setAcceptedOptions(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9)
}

// startAccepting starts accepting at a.
func (l *loop) startAccepting(a *acceptor) {
	l.acceptors[a.id] = a
	// A connection wakes one of the sleeping loops, not all of them.
	ev := newEvent(readable|unix.EPOLLEXCLUSIVE, a.id)
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, int(a.fd), &ev); err != nil && err != unix.EEXIST {
		l.pauseAccepting()
	}
}

// stopAccepting closes a.
func (l *loop) stopAccepting(a *acceptor) {
	if l.acceptors[a.id] != a {
		return // closed before, or never started
	}
	delete(l.acceptors, a.id)
	_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, int(a.fd), nil)
	_ = unix.Close(int(a.fd))
	close(a.closed)
}

// pauseAccepting stops accepting for acceptPause. Otherwise epoll would report the listening socket
// again at once, and accepting would fail again.
func (l *loop) pauseAccepting() {
	for _, a := range l.acceptors {
		_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, int(a.fd), nil)
	}
	l.resumeAt = l.now.Add(acceptPause)
}

// resumeAccepting accepts again when the pause is over.
func (l *loop) resumeAccepting() {
	if l.resumeAt == 0 || l.now < l.resumeAt {
		return
	}
	l.resumeAt = 0
	for _, a := range l.acceptors {
		l.startAccepting(a)
	}
}

// accept accepts connections and gives each to the loop with the fewest.
func (l *loop) accept(a *acceptor) {
	for range maxAccepts {
		fd, from, err := unix.Accept4(int(a.fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return
		// There are no descriptors or no memory left, or the listening socket is unusable.
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EINVAL, unix.EBADF, unix.ENOTSOCK, unix.EOPNOTSUPP:
			l.pauseAccepting()
			return
		default: // the connection has failed already
			continue
		}
		to := l.t.leastBusy()
		c := l.t.newConnection(to, fd, addrPort(from))
		c.handler = a.open(c)
		if to == l {
			l.register(c, nil)
		} else if !to.post(command{kind: register, c: c}) {
			// The other loop has stopped. This loop closes c, as if c were one of its own.
			c.state |= registered
			l.closeLater(c, transport.ErrClosed)
		}
	}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// Do implements RawConn.
func (c *connection) Do(f func()) { c.loop.post(command{kind: do, c: c, f: f}) }

// SetHandler implements RawConn.
func (c *connection) SetHandler(h transport.Handler) { c.handler = h }

// Detach implements RawConn.
func (c *connection) Detach() (net.Conn, error) {
	if c.is(toBeClosed|closeRequested) || c.out != nil {
		return nil, fmt.Errorf("detach connection: %w", transport.ErrClosed)
	}
	fd, err := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("detach connection: %w", os.NewSyscallError("fcntl", err))
	}
	f := os.NewFile(uintptr(fd), "connection")
	nc, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		// Package os may have changed the mode, which all descriptors of a socket share.
		_ = unix.SetNonblock(int(c.fd), true)
		return nil, fmt.Errorf("detach connection: %w", err)
	}
	c.state |= toBeClosed
	c.loop.unregister(c)
	_ = unix.Close(int(c.fd))
	c.fd, c.handler = -1, nil
	return nc, nil
}
