package redis

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unackedTimeout is how long sent bytes may stay unacknowledged, in milliseconds. Keep-alives do
// not work while there are such bytes.
const unackedTimeout = 30_000

// setSocketOptions prepares a socket before it connects.
func setSocketOptions(network, _ string, c syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unackedTimeout)
	}); cerr != nil {
		return cerr
	}
	return err
}
