//go:build !linux

package child

import "os/exec"

// On this system, a child continues to run when its parent is killed.
func dieWithParent(*exec.Cmd) {}
