//go:build !linux

package hub

import (
	"runtime"
	"time"
)

// pause lets other goroutines run. Each system has another way to sleep for less than a
// millisecond.
func pause(time.Duration) { runtime.Gosched() }
