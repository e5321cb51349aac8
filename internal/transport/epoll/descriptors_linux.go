package epoll

import "golang.org/x/sys/unix"

// maxReserved is for how many descriptors reserveDescriptors makes room: half a megabyte of the kernel's memory.
const maxReserved = 1 << 16

// reserveDescriptors has the kernel make room in the process's table of descriptors, by a copy of fd with a high number for a moment.
// The table else doubles whenever it is full, and each time everybody who wants a descriptor waits until all processors have
// let go of the old one, for milliseconds: in a storm of connects that blocks as many of Go's threads as there are
// handshakes, or an event loop that accepts. A limit that is lower, or a number that is in use, only makes the room smaller.
func reserveDescriptors(fd int) {
	most := uint64(maxReserved)
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		most = min(most, limit.Cur)
	}
	if high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, int(most)-1); err == nil {
		_ = unix.Close(high)
	}
}
