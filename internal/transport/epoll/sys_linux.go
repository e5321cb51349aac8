package epoll

import (
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What epoll reports, as the type of its field.
const (
	readable = uint32(unix.EPOLLIN)
	writable = uint32(unix.EPOLLOUT)
	broken   = uint32(unix.EPOLLERR)
	hungUp   = uint32(unix.EPOLLHUP)
)

// interestIn asks epoll for events, which will carry id.
// newID returns the id of a connection or acceptor. Ids are used again after 2^32 connections, and
// only for the same descriptor. 0, which has a descriptor that is never a socket's, stands for the
// eventfd of a loop.
func newID(serial uint32, fd int32) uint64 { return uint64(serial)<<32 | uint64(uint32(fd)) }

func newEvent(events uint32, id uint64) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(id), Pad: int32(id >> 32)}
}

// idOf returns the id that ev carries.
func eventID(ev *unix.EpollEvent) uint64 { return uint64(uint32(ev.Pad))<<32 | uint64(uint32(ev.Fd)) }

const sendFlags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT

// The calls below that cannot wait are raw: the runtime is not told that the goroutine is in the kernel. Told of each of
// the thousands of a fan-out, it takes the processor away and gives it back now and then, which on a busy machine costs
// several times what it saves. Those that are made by the thousand are package syscall's: package unix calls the same by
// way of two more functions.

// send writes p, which is not empty, once. Package unix has no send that tells how much was written.
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

// vectors is reused for every gathering write of a loop.
type gatherWriter struct {
	pieces [][]byte
	iov    []unix.Iovec
	msg    unix.Msghdr
}

const maxIovecs = 64

// send writes v.pieces once, and forgets them. It returns their length, too.
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

// poll is epoll_wait that does not wait.
func pollEvents(ep int, events []unix.EpollEvent) int {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

// wait is epoll_wait for at most d, or without a limit if d is negative. An error means that a signal
// peerClosed the wait, and counts as no event.
func waitEvents(ep int, events []unix.EpollEvent, d time.Duration) int {
	n, err := unix.EpollWait(ep, events, milliseconds(d))
	if err != nil {
		return 0
	}
	return n
}

// milliseconds rounds d up, so that a deadline has passed after the wait. The kernel takes 32 bits: a
// longer wait ends after an hour, and the loop computes the rest. A negative d is -1, without a limit.
func milliseconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((min(d, time.Hour) + time.Millisecond - 1) / time.Millisecond)
}

// hangup is why a socket that is broken or hung up is so.
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

// duplicate gives a socket of package net another descriptor, one that Go's poller does not know. Unlike what File
// returns it leaves the socket's mode, which both share, alone.
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
