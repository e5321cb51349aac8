//go:build !linux

package hub

import (
	"runtime"
	"time"
)

// pause lets others run. What would sleep for less than a millisecond differs from system to system.
func pause(time.Duration) { runtime.Gosched() }
