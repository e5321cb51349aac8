package epoll

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// nap is how long a loop sleeps in the kernel before it parks. Under load the next event is microseconds away, and a thread
// that sleeps in the kernel is the first to hear of it.
const nap = 2 * time.Millisecond

// parking is how a loop sleeps for longer: as a goroutine that Go's poller wakes.
//
// For the runtime, a thread in the kernel may be back any moment. It keeps a processor for it, which other goroutines miss,
// for up to 10 ms; and once it has had to take one back, its monitor looks every few tens of microseconds for a while
// whether there is another. A loop that slept in the kernel alone, fifty times a second, had that monitor use one part in
// forty of all that the server did.
//
// What Go's poller watches is a gate: an epoll whose only member is the loop's, asked for events only while the loop is
// parked. Were it the loop's own, each event would wake a thread, while the loop is at work, too.
type parking struct {
	// Set by newParking, then read-only.
	ep   int // the loop's
	gate int
	file *os.File // the gate, as Go's poller has it
	raw  syscall.RawConn
	look func(fd uintptr) bool // p.peek, made once

	// Owned by the goroutine that calls wait.
	events []unix.EpollEvent
	n      int  // events found
	open   bool // the gate lets events through
	timed  bool // file has a deadline
}

func newParking(ep int) (*parking, error) {
	gate, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(gate, true) // NewFile gives to Go's poller what does not block
	p := &parking{ep: ep, gate: gate, file: os.NewFile(uintptr(gate), "epoll")}
	p.look = p.peek
	err = p.ask(unix.EPOLL_CTL_ADD, 0)
	if err == nil {
		p.raw, err = p.file.SyscallConn()
	}
	if err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails if Go's poller did not take it
	}
	if err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("have an epoll watched: %w", err)
	}
	return p, nil
}

func (p *parking) close() { _ = p.file.Close() }

// ask sets what the gate lets through.
func (p *parking) ask(op int, events uint32) error {
	err := unix.EpollCtl(p.gate, op, p.ep, &unix.EpollEvent{Events: events, Fd: int32(p.ep)})
	return os.NewSyscallError("epoll_ctl", err)
}

// wait is epoll_wait on the loop's epoll, for at most d; negative: until there is an event.
func (p *parking) wait(events []unix.EpollEvent, d time.Duration) int {
	switch {
	case d >= 0:
		_ = p.file.SetReadDeadline(time.Now().Add(d))
	case p.timed:
		_ = p.file.SetReadDeadline(time.Time{})
	}
	p.timed = d >= 0
	p.events, p.n = events, 0
	_ = p.raw.Read(p.look) // an error is the deadline
	p.events = nil
	if p.open {
		p.open = false
		_ = p.ask(unix.EPOLL_CTL_MOD, 0)
	}
	return p.n
}

// peek is what Go's poller calls before it waits, and whenever the gate tells of events. It reports whether there are any.
func (p *parking) peek(uintptr) bool {
	p.n = poll(p.ep, p.events)
	if p.n == 0 && !p.open {
		p.open = true
		_ = p.ask(unix.EPOLL_CTL_MOD, readable)
		// What came before the gate was open may never be told: the kernel does not tell of it if the gate is still listed
		// as ready from the last time, which nobody takes off that list.
		p.n = poll(p.ep, p.events)
	}
	return p.n > 0
}
