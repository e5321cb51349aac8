package hub

import (
	"syscall"
	"time"
)

// pause gives the processor to other threads for d, or some fifty microseconds more. Unlike time.Sleep, which may wait
// for a whole millisecond.
func pause(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal ends it early, and that is no harm
}
