// Package port finds ports for servers of tests that must be told which to take, or take the same twice.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// The ports are below those that systems give to whoever asks for any (Linux 32768, others 49152): while nobody listens on one
// that a test has found, no connection and no listener on port 0 gets it.
const first, last = 20_000, 32_767

// Free is an address on 127.0.0.1 that nobody listens on now.
func Free(tb testing.TB) (addr string) {
	tb.Helper()
	for range 1000 {
		addr = fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first+1))
		if l, err := net.Listen("tcp", addr); err == nil {
			if err := l.Close(); err != nil {
				tb.Fatal(err)
			}
			return addr
		}
	}
	tb.Fatal("no port is free")
	return ""
}
