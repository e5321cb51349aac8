//go:build !linux

package redis

import "syscall"

// control leaves the socket as it is: probes notice what a timeout of TCP would.
func control(string, string, syscall.RawConn) error { return nil }
