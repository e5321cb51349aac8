package main

import "syscall"

// dieWithParent makes the kernel end a process when we are killed and cannot do it ourselves.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
