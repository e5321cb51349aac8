package epoll

import (
	"net"
	"testing"

	"github.com/hearthws/hearth/internal/transport"
)

// TestManyLoopsAccept checks that every loop may accept, however many there are. The kernel limits
// how many epolls may watch one socket if they are nested, and a loop that is rejected retries
// forever.
func TestManyLoopsAccept(t *testing.T) {
	t.Parallel()
	tr, err := New(transport.Config{Loops: 128, Tick: func(int) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Listen(ln, nil); err != nil {
		t.Fatal(err)
	}
	rejected := 0
	for _, l := range tr.loops {
		done := make(chan struct{})
		look := func() { // on the loop, after it has started accepting
			if l.resumeAt != 0 || len(l.acceptors) != 1 {
				rejected++
			}
			close(done)
		}
		if !l.post(command{kind: do, c: &connection{state: registered}, f: look}) {
			t.Fatal("post: the loop has stopped")
		}
		<-done
	}
	if rejected > 0 {
		t.Errorf("%d of %d loops do not accept", rejected, len(tr.loops))
	}
}
