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

// The calls below that never block are raw: the runtime does not know that the goroutine is in the
// kernel. Otherwise its monitor sometimes takes the processor from the loop in the middle of a
// fan-out, which delays the loop on a busy machine: a write to each of 1,000 connections took 1.27
// times the CPU (medians of 4 runs in turns). Frequent calls use package syscall, because package
// unix makes the same calls through two more functions.

// send writes p, which is not empty, once. Package unix has no send that returns the number of
// bytes written.
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

// A gatherWriter writes several pieces in one call. A loop reuses one, so that it allocates
// nothing.
type gatherWriter struct {
	pieces [][]byte
	iov    []unix.Iovec
	msg    unix.Msghdr
}

const maxIovecs = 64

// send writes v.pieces once and removes them. It returns the number of bytes written, and of all
// pieces.
func (v *gatherWriter) send(fd int32) (n, of int, e unix.Errno) {
	v.iov = v.iov[:0]
	for _, p := range v.pieces {
		iov := unix.Iovec{Base: &p[0]}
		iov.SetLen(len(p))
		v.iov = append(v.iov, iov)
		of += len(p)
	}
	v.msg.Iov = &v.iov[0]
	v.msg.SetIovlen(len(v.iov))
	for e = unix.EINTR; e == unix.EINTR; {
		var r uintptr
		r, _, e = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.msg)), sendFlags)
		n = int(r)
	}
	if e != 0 {
		n = 0
	}
	clear(v.iov)
	clear(v.pieces)
	v.pieces = v.pieces[:0]
	return n, of, e
}

// recv reads once into p, which is not empty.
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

// pollEvents calls epoll_wait with a timeout of 0.
func pollEvents(ep int, events []unix.EpollEvent) int {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
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
