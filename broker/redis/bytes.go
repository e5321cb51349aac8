package redis

import "unsafe"

// asString turns bytes into a string without a copy. What is encoded here is never changed afterwards, and what has been
// received stays as it is until it has been delivered.
func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
