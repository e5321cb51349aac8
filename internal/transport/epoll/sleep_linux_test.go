package epoll

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// parked makes a parking for an epoll that has an eventfd as the loop's has. Each call of ring is an event.
func parked(t *testing.T) (p *parking, ring func()) {
	t.Helper()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: readable | unix.EPOLLET&(1<<32-1)}); err != nil {
		t.Fatal(err)
	}
	if p, err = newParking(ep); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.close()
		_ = unix.Close(bell)
		_ = unix.Close(ep)
	})
	return p, func() {
		if _, err := unix.Write(bell, binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
			t.Error(err)
		}
	}
}

// No event may be missed, whenever it comes: least of all while the gate is being opened.
func TestParkingHearsEveryEvent(t *testing.T) {
	t.Parallel()
	p, ring := parked(t)
	events := make([]unix.EpollEvent, 8)
	const rounds = 30_000
	begin, done := make(chan int), make(chan struct{})
	go func() { // ends with begin; received from done
		defer close(done)
		for round := range begin {
			for range round % 97 {
				runtime.Gosched()
			}
			ring()
		}
	}()
	defer func() {
		close(begin)
		<-done
	}()
	for round := range rounds {
		begin <- round
		if p.wait(events, 20*time.Second) == 0 {
			t.Fatalf("round %d: the event was not told", round)
		}
	}
}

func TestParkingKeepsItsTime(t *testing.T) {
	t.Parallel()
	p, ring := parked(t)
	events := make([]unix.EpollEvent, 8)
	for _, d := range []time.Duration{0, time.Millisecond, 30 * time.Millisecond} {
		began := time.Now()
		if n := p.wait(events, d); n != 0 {
			t.Fatalf("%d events of none", n)
		}
		if took := time.Since(began); took < d {
			t.Fatalf("waited for %v, not %v", took, d)
		}
	}
	// A deadline that has passed is none for the next wait.
	heard := make(chan int)
	go func() { heard <- p.wait(events, -1) }() // ends with ring; received from heard
	select {
	case <-heard:
		t.Fatal("came back from a wait without end")
	case <-time.After(50 * time.Millisecond):
	}
	ring()
	if n := <-heard; n != 1 {
		t.Fatalf("%d events of one", n)
	}
}
