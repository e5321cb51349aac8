package hub

import (
	"syscall"
	"time"
)

// pause gives the processor to other threads for d, or some fifty microseconds more. time.Sleep
// might wait for a whole millisecond.
func pause(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal may end it early, which does no harm
}
