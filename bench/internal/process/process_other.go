//go:build !linux

package process

import "syscall"

// DieWithParent changes nothing here: the benchmarks refuse to run on other systems.
func DieWithParent() *syscall.SysProcAttr { return nil }
