//go:build unix

package redis_test

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// cpu returns the CPU time of this process, in user and system mode.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFromRedis measures what a message of 100 bytes costs this process in all, from Redis's
// socket to Receiver.Deliver. Another process publishes. The figure is cpu-ns/op; the time is that
// of the slowest of the three processes.
func BenchmarkFromRedis(b *testing.B) {
	tool, err := exec.LookPath("redis-benchmark")
	if err != nil {
		b.Skip("no redis-benchmark in the path: it comes with redis-server")
	}
	for _, pipeline := range []int{1, 64} {
		b.Run(fmt.Sprintf("pipeline=%d", pipeline), func(b *testing.B) {
			server := redistest.Start(b)
			got := make(chan struct{}, 1)
			n, want := 0, 0 // owned by the receiver while messages arrive
			// A loss would falsify the figure.
			c := redis.Config{URL: server.URL(), ReceiveQueue: redis.Bound{Messages: 1 << 24, Bytes: 1 << 30}}
			node := newBroker(b, c)
			defer func() { _ = node.Close() }()
			if err := node.Start(ctx(b), broker.Receiver{ServerID: "me", Deliver: func(protocol.Message) {
				if n++; n == want {
					got <- struct{}{}
				}
			}}); err != nil {
				b.Fatal(err)
			}
			room := protocol.Message{
				ServerID: "5f4dcc3b-5aa7-65d6-1d83-27deb882cf99", Type: protocol.TypeRoom, Target: "lobby", Event: "message",
				Data: []byte(`"` + strings.Repeat("x", 100) + `"`),
			}
			if err := node.Hold(ctx(b), room.Channel()); err != nil {
				b.Fatal(err)
			}
			_, port := split(server.Addr)
			// redis-benchmark sends a whole number of pipelines from each of its connections.
			count := (b.N + pipeline - 1) / pipeline * pipeline
			n, want = 0, count
			publish := exec.Command(tool, "-p", port, "-c", "1", "-P", fmt.Sprint(pipeline), "-n", fmt.Sprint(count), "-q",
				"PUBLISH", room.Channel(), string(protocol.AppendMessage(nil, room)))
			before := cpu(b)
			b.ReportAllocs()
			b.ResetTimer()
			if out, err := publish.CombinedOutput(); err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			select {
			case <-got:
			case <-time.After(testTimeout):
				b.Fatalf("messages are missing: %+v", node.Health())
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(count), "cpu-ns/op")
		})
	}
}

// BenchmarkPublish measures what a message of 100 bytes costs the publisher, and Redis, in the
// order of sending.
func BenchmarkPublish(b *testing.B) {
	server := redistest.Start(b)
	node := newBroker(b, redis.Config{URL: server.URL()})
	defer func() { _ = node.Close() }()
	m := protocol.Message{ServerID: "me", Type: protocol.TypeBroadcast, Event: "message", Data: []byte(`"` + strings.Repeat("x", 100) + `"`)}
	ms := make([]protocol.Message, 512)
	for i := range ms {
		ms[i] = m
	}
	before := cpu(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(ms) > 0 {
			continue
		}
		if errs := node.PublishAll(b.Context(), ms); errs != nil {
			b.Fatal(errs[0])
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}
