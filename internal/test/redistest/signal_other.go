//go:build !unix

package redistest

import "syscall"

// A process cannot be stopped on this system, so Freeze and Thaw fail the test.
const stop, cont = syscall.Signal(0x13), syscall.Signal(0x12)
