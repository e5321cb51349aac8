//go:build !unix

package transporttest

import "time"

// cpuTime is not known.
func cpuTime() time.Duration { return 0 }
