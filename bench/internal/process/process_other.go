//go:build !linux

package process

import "syscall"

// DieWithParent does nothing: the benchmarks do not run on this system.
func DieWithParent() *syscall.SysProcAttr { return nil }
