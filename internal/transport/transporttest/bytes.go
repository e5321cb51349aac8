package transporttest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/hearthws/hearth/internal/transport"
)

func testEcho(t *testing.T, b Backend) {
	const clients, size = 20, 300 << 10
	r := b.start(t, transport.Config{Loops: 2, BackpressureLimit: 2 * size})
	var wg sync.WaitGroup
	for i := range clients {
		m := r.connect(b, nil, echo)
		m.setDeadline(testTimeout)
		want := pattern(i, size)
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for p := want; len(p) > 0; {
				n, err := m.nc.Write(p[:min(len(p), 1+rnd.IntN(20<<10))])
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				p = p[n:]
			}
		})
		wg.Go(func() {
			got := make([]byte, size)
			if _, err := io.ReadFull(m.nc, got); err != nil {
				t.Errorf("client %d: %v", i, err)
			} else if !bytes.Equal(got, want) {
				t.Errorf("client %d did not get the bytes that it sent", i)
			}
		})
	}
	wg.Wait()
}

// testCoalesce checks that one read returns everything that was written in one turn.
func testCoalesce(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	var want []byte
	for i := range 100 {
		want = append(want, pattern(i, 10)...)
	}
	got := make([]byte, 2*len(want))
	for range 50 {
		m.on(func() {
			for i := 0; i < len(want); i += 10 {
				if !m.conn.Write(want[i : i+10 : i+10]) {
					t.Error("Write = false")
				}
			}
		})
		n, err := m.nc.Read(got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Fatalf("first read: %d bytes, %v; want all %d", n, err, len(want))
		}
	}
}

// testOrder checks the order of bytes that are written in both ways, in pieces of many sizes.
func testOrder(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{BackpressureLimit: 64 << 20})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	rnd := rand.New(rand.NewPCG(2, 3))
	var want []byte
	const turns = 60
	sizes := []int{0, 1, 2, 100, 1000, 5000, 17 << 10, 70 << 10}
	plan := make([][][]byte, turns)
	for i := range plan {
		for j := range 1 + rnd.IntN(12) {
			p := pattern(i*100+j, sizes[rnd.IntN(len(sizes))])
			plan[i] = append(plan[i], p)
			want = append(want, p...)
		}
	}
	go func() { // ends after the last post; the read below waits for all bytes
		for i, pieces := range plan {
			r.post(0, func() {
				for j, p := range pieces {
					write := m.conn.Write
					if (i+j)%3 == 0 {
						write = m.conn.WriteNow
					}
					if !write(p) {
						t.Error("a write was rejected")
					}
				}
			})
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(m.nc, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("bytes out of order")
	}
}

// testFanOut writes shared buffers to connections whose clients do not read yet.
func testFanOut(t *testing.T, b Backend) {
	const clients, turns = 30, 20
	r := b.start(t, transport.Config{Loops: 2, BackpressureLimit: 64 << 20})
	shared := pattern(7, 40<<10)
	before := bytes.Clone(shared)
	members := make([][]*member, r.tr.Loops())
	for range clients {
		m := r.connect(b, nil, nil)
		m.setDeadline(testTimeout)
		members[m.conn.Loop()] = append(members[m.conn.Loop()], m)
	}
	for range turns {
		for l := range r.tr.Loops() {
			r.post(l, func() {
				for _, m := range members[l] {
					if !m.conn.Write(shared[:100]) || !m.conn.Write(shared[100:]) {
						t.Error("Write = false")
					}
				}
			})
		}
	}
	for l := range r.tr.Loops() {
		r.on(l, func() {})
	}
	var wg sync.WaitGroup
	for _, ms := range members {
		for _, m := range ms {
			wg.Go(func() {
				got := make([]byte, len(before))
				for range turns {
					if _, err := io.ReadFull(m.nc, got); err != nil || !bytes.Equal(got, before) {
						t.Errorf("got wrong bytes (%v)", err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	if !bytes.Equal(shared, before) {
		t.Error("the shared buffer was changed")
	}
}

func testEarly(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{Loops: 2})
	for i := range 20 {
		early, rest := pattern(i, 3000), pattern(-i, 5000)
		m := r.connect(b, early, nil)
		m.setDeadline(testTimeout)
		if _, err := m.nc.Write(rest); err != nil {
			t.Fatal(err)
		}
		want := append(pattern(i, 3000), rest...)
		if got := m.awaitData(len(want)); !bytes.Equal(got, want) {
			t.Error("the early bytes are not first, or not complete")
		}
	}
}

// testEarlyThenEnd adopts a connection with early bytes whose client closes its side meanwhile, as
// an upgrade may.
func testEarlyThenEnd(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	server, client := b.Dial(t)
	m := r.member(echo)
	m.nc = client
	m.setDeadline(testTimeout)
	written := make(chan struct{})
	go func() { // ended by the write; the test waits for written
		defer close(written)
		if _, err := client.Write([]byte(" and late")); err != nil {
			t.Error(err)
		}
		m.closeWrite()
	}()
	if err := r.tr.Adopt(server, []byte("early"), m.open); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(client)
	if err != nil || string(got) != "early and late" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := m.awaitClosed(); err != io.EOF {
		t.Errorf("closed with %v", err)
	}
	<-written
	_ = client.Close()
}

// testWriteBeforeAdopted writes to the connection within open.
func testWriteBeforeAdopted(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	server, client := b.Dial(t)
	defer client.Close()
	m := r.member(nil)
	m.nc = client
	m.setDeadline(testTimeout)
	err := r.tr.Adopt(server, nil, func(c transport.Conn) transport.Handler {
		m.conn = c
		m.on(func() { c.Write([]byte("hello ")); c.WriteNow([]byte("there")) })
		return m
	})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 11)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello there" {
		t.Errorf("got %q, %v", got, err)
	}
}

func testAddresses(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	var want netip.AddrPort
	if a, ok := m.nc.LocalAddr().(*net.TCPAddr); ok {
		want = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	if got := m.conn.RemoteAddr(); got != want {
		t.Errorf("RemoteAddr = %v, want %v", got, want)
	}
}

// testLoops checks that connections are spread evenly over the loops, also after some were closed.
func testLoops(t *testing.T, b Backend) {
	const loops, each = 4, 5
	r := b.start(t, transport.Config{Loops: loops})
	if r.tr.Loops() != loops {
		t.Fatalf("Loops = %d, want %d", r.tr.Loops(), loops)
	}
	var members []*member
	fill := func(n int) string {
		for range n {
			members = append(members, r.connect(b, nil, nil))
		}
		var count [loops]int
		for _, m := range members {
			count[m.conn.Loop()]++
		}
		return fmt.Sprint(count)
	}
	want := fmt.Sprint([loops]int{each, each, each, each})
	if got := fill(loops * each); got != want {
		t.Errorf("connections per loop: %v, want %v", got, want)
	}
	stay := members[:0]
	for _, m := range members {
		if m.conn.Loop() == 2 {
			m.conn.Abort()
			_ = m.awaitClosed()
		} else {
			stay = append(stay, m)
		}
	}
	members = stay
	if got := fill(each); got != want {
		t.Errorf("connections per loop after some were closed: %v, want %v", got, want)
	}
}
