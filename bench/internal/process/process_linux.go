package process

import "syscall"

// DieWithParent makes the kernel end a process when we are killed and cannot do it ourselves.
func DieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
