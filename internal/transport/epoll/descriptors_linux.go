package epoll

import "golang.org/x/sys/unix"

// maxReserved is the number of descriptors that reserveDescriptors reserves space for. They take
// half a megabyte of the kernel's memory.
const maxReserved = 1 << 16

// reserveDescriptors makes the kernel enlarge the process's table of descriptors: it duplicates fd
// to a high number and closes the duplicate. Otherwise the table doubles whenever it is full, and
// each time, every open blocks for an RCU grace period, which takes milliseconds. Under many
// connects that blocks one of Go's threads per handshake, or an event loop that accepts. If the
// limit is lower or the number is in use, less space is reserved.
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
