//go:build unix

package redistest

import "syscall"

const stop, cont = syscall.SIGSTOP, syscall.SIGCONT
