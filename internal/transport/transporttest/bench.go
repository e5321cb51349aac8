package transporttest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/hearthws/hearth/internal/transport"
)

const (
	drainAddr  = "TRANSPORTTEST_DRAIN"
	drainCount = "TRANSPORTTEST_DRAIN_CLIENTS"
)

// Drain returns false, unless BenchmarkFanOut has started this process for its clients. Then Drain
// runs clients that read and discard everything, and returns true at the end of the benchmark.
// TestMain calls it first. The clients have a process of their own so that their work is not
// measured.
func Drain() bool {
	addr := os.Getenv(drainAddr)
	if addr == "" {
		return false
	}
	n, err := strconv.Atoi(os.Getenv(drainCount))
	if err != nil {
		fmt.Fprintln(os.Stderr, "drain:", err)
		return true
	}
	var wg sync.WaitGroup
	for range n {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, "drain:", err)
			return true
		}
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				if _, err := nc.Read(buf); err != nil {
					return // the benchmark is over
				}
			}
		})
	}
	fmt.Println("ready")
	wg.Wait()
	return true
}

// BenchmarkFanOut writes one shared buffer to 1,000 connections in each turn, and reports the time
// per connection. Each turn begins when everything is written, so it does not measure the reader.
func BenchmarkFanOut(b *testing.B, be Backend) {
	for _, size := range []int{100, 8 << 10} {
		for _, how := range []string{"WriteNow", "Write", "Write4"} {
			b.Run(fmt.Sprintf("%d/%s", size, how), func(b *testing.B) { fanOut(b, be, size, how) })
		}
	}
}

func fanOut(b *testing.B, be Backend, size int, how string) {
	const clients = 1000
	r := be.start(b, transport.Config{BackpressureLimit: 64 << 20})
	members := r.connectDrained(clients)
	p := pattern(1, size)
	cpu := cpuTime()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for waiting := true; waiting; {
			r.on(0, func() {
				waiting = slices.ContainsFunc(members, func(m *member) bool { return m.conn.Buffered() > 0 })
			})
		}
		r.on(0, func() {
			for _, m := range members {
				switch how {
				case "WriteNow":
					m.conn.WriteNow(p)
				case "Write":
					m.conn.Write(p)
				case "Write4": // in four pieces
					for i := range 4 {
						m.conn.Write(p[i*size/4 : (i+1)*size/4])
					}
				}
			}
		})
	}
	b.StopTimer()
	n := float64(b.N * clients)
	b.ReportMetric(float64(b.Elapsed())/n, "ns/delivery")
	b.ReportMetric(float64(cpuTime()-cpu)/n, "cpu-ns/delivery")
}

// connectDrained adopts n connections whose clients, in another process, read everything.
func (r *rig) connectDrained(n int) []*member {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	defer ln.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), drainAddr+"="+ln.Addr().String(), drainCount+"="+strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = r.tr.Close() // ends the reader
		_ = cmd.Wait()
	})
	var members []*member
	for range n {
		nc, err := ln.Accept()
		if err != nil {
			r.t.Fatal(err)
		}
		m := r.member(nil)
		if err := r.tr.Adopt(nc, nil, m.open); err != nil {
			r.t.Fatal(err)
		}
		members = append(members, m)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		r.t.Fatal(err)
	}
	return members
}

// BenchmarkWake measures the time from Wake of a sleeping loop to its Tick and back.
func BenchmarkWake(b *testing.B, be Backend) {
	r := be.start(b, transport.Config{})
	done := make(chan struct{})
	f := func() { done <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		r.post(0, f)
		<-done
	}
}

// BenchmarkEcho measures a round trip of 100 bytes, including the client.
func BenchmarkEcho(b *testing.B, be Backend) {
	r := be.start(b, transport.Config{})
	m := r.connect(be, nil, echo)
	p := pattern(1, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.nc.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(m.nc, p); err != nil {
			b.Fatal(err)
		}
	}
}
