package epoll

import (
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Events of epoll, in the type of their field.
const (
	readable = uint32(unix.EPOLLIN)
	writable = uint32(unix.EPOLLOUT)
	broken   = uint32(unix.EPOLLERR)
	hungUp   = uint32(unix.EPOLLHUP)
)

// newID returns the id of a connection or acceptor. An id is used again only after 2^32
// connections, and only for the same descriptor. 0 is for the eventfd of a loop: no socket has
// descriptor 0.
func newID(serial uint32, fd int32) uint64 { return uint64(serial)<<32 | uint64(uint32(fd)) }

// newEvent returns the argument by which epoll reports events together with id.
func newEvent(events uint32, id uint64) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(id), Pad: int32(id >> 32)}
}

// eventID returns the id that ev carries.
func eventID(ev *unix.EpollEvent) uint64 { return uint64(uint32(ev.Pad))<<32 | uint64(uint32(ev.Fd)) }

const sendFlags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT

// The calls to send and receive never block, so they are raw: the runtime need not know that the
// goroutine is in the kernel. That costs nothing to write, and saves 5 to 10 % of the CPU of a send
// (BenchmarkFanOut, BenchmarkEcho, medians of runs in turns).

// send passes p, which is not empty, to the socket once. Package unix has no send that returns the
// number of bytes that the socket has taken.
func send(fd int32, p []byte) (int, unix.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), sendFlags, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// A gatherWriter writes several pieces in one call. Unlike unix.SendmsgBuffers it allocates
// nothing, because a loop reuses one.
type gatherWriter struct {
	pieces [][]byte
	iov    []unix.Iovec
	msg    unix.Msghdr
}

const maxIovecs = 64

// send passes v.pieces to the socket once, and removes them. It returns the number of bytes that
// the socket has taken, and the number of bytes in all pieces.
func (v *gatherWriter) send(fd int32) (n, total int, e unix.Errno) {
	v.iov = v.iov[:0]
	for _, p := range v.pieces {
		iov := unix.Iovec{Base: &p[0]}
		iov.SetLen(len(p))
		v.iov = append(v.iov, iov)
		total += len(p)
	}
	v.msg.Iov = &v.iov[0]
	v.msg.SetIovlen(len(v.iov))
	for e = unix.EINTR; e == unix.EINTR; {
		var r uintptr
		r, _, e = syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.msg)), sendFlags)
		n = int(r)
	}
	if e != 0 {
		n = 0
	}
	clear(v.iov)
	clear(v.pieces)
	v.pieces = v.pieces[:0]
	return n, total, e
}

// recv reads once into p, which is not empty. Unlike unix.Recvfrom it does not allocate an address.
func recv(fd int32, p []byte) (int, error) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// waitEvents calls epoll_wait with a timeout of d, or without a timeout if d is negative. An error
// means that a signal interrupted the wait, and counts as no event.
func waitEvents(ep int, events []unix.EpollEvent, d time.Duration) int {
	n, err := unix.EpollWait(ep, events, milliseconds(d))
	if err != nil {
		return 0
	}
	return n
}

// milliseconds returns d rounded up, so that a deadline has passed after the wait, and -1 (no
// timeout) if d is negative. The kernel takes 32 bits, so the result is at most an hour; after that
// the loop computes the rest.
func milliseconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((min(d, time.Hour) + time.Millisecond - 1) / time.Millisecond)
}

// socketError returns the error of a socket that epoll reported as broken or hung up.
func socketError(fd int32) error {
	code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if code == 0 {
		return io.EOF
	}
	return os.NewSyscallError("epoll", unix.Errno(code))
}

// duplicate returns another descriptor of a socket of package net, which Go's poller does not know.
// Unlike File, it does not change the mode of the socket, which all its descriptors share.
func duplicate(nc syscall.Conn) (int, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup := -1
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err != nil {
		return -1, err
	}
	return dup, os.NewSyscallError("fcntl", dupErr)
}
