//go:build !linux

package redis

import "syscall"

// setSocketOptions does nothing: probes notice a dead connection, too.
func setSocketOptions(string, string, syscall.RawConn) error { return nil }
