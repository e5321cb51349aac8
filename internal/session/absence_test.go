package session_test

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/ws"
)

// TestAbsentSessionIsSmall checks that a session keeps no incomplete message while its client is
// absent.
func TestAbsentSessionIsSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newResumeFixture(t, session.Callbacks{})
		b.env.Tickets.Grace = time.Minute
		defer b.env.Lobby.Close()
		const clients, size = 100, 64 << 10
		frame := ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(strings.Repeat("x", size)))
		peers := make([]*peer, clients)
		for i := range peers {
			peers[i], _ = b.holder(t, `"resume"`)
			peers[i].Data(append([]byte(nil), frame[:size]...), 0)
		}
		before := heapInUse()
		for _, p := range peers {
			p.Closed(transport.ErrClosed)
		}
		synctest.Wait()
		if freed := (before - heapInUse()) / clients; freed < size/2 {
			t.Errorf("a session of which %d bytes of a message have arrived freed %d bytes", size, freed)
		}
		if n := b.env.Tickets.Absent(); n != clients {
			t.Errorf("%d of %d clients are absent", n, clients)
		}
		b.env.Tickets.CloseAbsences()
		b.env.Running.Wait()
		b.env.Pool.Wait()
		if n := b.env.Tickets.Absent(); n != 0 {
			t.Errorf("%d clients are absent at the end", n)
		}
		runtime.KeepAlive(peers)
	})
}

// heapInUse returns the bytes of all objects that are reachable.
func heapInUse() int {
	runtime.GC()
	runtime.GC() // also what pools kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
