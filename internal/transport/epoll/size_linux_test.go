package epoll

import (
	"testing"
	"unsafe"
)

func TestIdleConnectionIsSmall(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(connection{}); size > 80 {
		t.Errorf("a connection takes %d bytes, want at most 80", size)
	}
}
