package session

import (
	"testing"
	"unsafe"
)

func TestIdleSessionIsSmall(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(Session{}); size > 208 {
		t.Errorf("a session takes %d bytes", size)
	}
}
