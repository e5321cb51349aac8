//go:build !linux

package main

import "syscall"

// dieWithParent has nothing to offer here: prepare refuses to run on other systems anyway.
func dieWithParent() *syscall.SysProcAttr { return nil }
