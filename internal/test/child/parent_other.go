//go:build !linux

package child

import "os/exec"

// Nothing ties a child to its parent here: one whose parent is killed stays.
func dieWithParent(*exec.Cmd) {}
