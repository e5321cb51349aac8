package redis

import "unsafe"

// asString returns a string that shares the bytes. They must not change while it is used: messages
// are encoded once, and not changed afterwards.
func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
