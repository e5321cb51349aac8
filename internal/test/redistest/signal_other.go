//go:build !unix

package redistest

import "syscall"

// Nothing stops a process here: Freeze and Thaw fail the test.
const stop, cont = syscall.Signal(0x13), syscall.Signal(0x12)
