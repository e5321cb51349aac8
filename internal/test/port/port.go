// Package port finds free ports for test servers that need a fixed port, or the same port twice.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// These ports are below the ephemeral range (Linux starts at 32768, others at 49152). While a test
// does not listen on the port that it has found, no connection and no listener on port 0 gets it.
const first, last = 20_000, 32_767

// Free returns an address on 127.0.0.1 with a free port.
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
