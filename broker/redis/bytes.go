package redis

import "unsafe"

// rueidis has strings where Hearth has bytes. These turn one into the other without a copy: what is encoded here is never
// changed afterwards, and what has been received is nobody else's.

func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func asBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
