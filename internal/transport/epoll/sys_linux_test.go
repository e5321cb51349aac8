package epoll

import (
	"math"
	"testing"
	"time"
)

func TestMilliseconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int{
		-1:                         -1,
		math.MinInt64:              -1,
		0:                          0,
		1:                          1,
		time.Millisecond:           1,
		time.Millisecond + 1:       2,
		time.Hour:                  3_600_000,
		1 << 32 * time.Millisecond: 3_600_000, // 0 in the kernel's 32 bits
		math.MaxInt64:              3_600_000,
	} {
		if got := milliseconds(d); got != want {
			t.Errorf("milliseconds(%d) = %d, want %d", d, got, want)
		}
	}
}
