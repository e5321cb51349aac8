// Command server serves the messages of the benchmark with Hearth (docs/benchmarks.md), through its
// public API and with everything that a real server has: authentication, the client's own room and
// the two default rooms, heartbeats, limits, the message callback. It listens on a free port of
// 127.0.0.1, unless told otherwise, and prints "READY 127.0.0.1:port".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/broker/redis"

	"github.com/hearthws/hearth/bench/internal/process"
)

// most is the largest number of clients of a benchmark.
const most = 1 << 20

func main() { os.Exit(process.Main(run)) }

func run(ctx context.Context, args []string, _, stderr io.Writer) int {
	var o options
	set := flag.NewFlagSet("server", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.IntVar(&o.loops, "loops", 1, "event loops")
	set.BoolVar(&o.raw, "raw", false, "accept on Hearth's own listener instead of through net/http")
	set.StringVar(&o.redisURL, "redis", "", "connect to other servers through this Redis")
	set.BoolVar(&o.encryption, "encryption", false, "encrypt for clients that send a public key")
	set.IntVar(&o.history, "history", 0, "keep so many messages of each room whose name begins with \"kept:\", for five minutes")
	set.DurationVar(&o.heartbeat, "heartbeat", 0, "Timeouts.Heartbeat (default: that of the library)")
	set.DurationVar(&o.drain, "drain", 0, "Timeouts.Drain")
	set.StringVar(&o.resumeKey, "resume-key", "", "give clients tickets that are sealed with this key, which is no secret here")
	set.StringVar(&o.listen, "listen", "127.0.0.1:0", "address to listen on")
	if set.Parse(args) != nil {
		return 2
	}
	if err := serve(ctx, o); err != nil {
		fmt.Fprintln(stderr, "server:", err)
		return 1
	}
	return 0
}

// options are the options of the command line.
type options struct {
	loops      int
	raw        bool
	redisURL   string
	encryption bool
	history    int // messages of a room, or 0
	heartbeat  time.Duration
	drain      time.Duration
	resumeKey  string // empty: no tickets
	listen     string
}

// setBroker sets the broker of a server that has other servers, or history.
func (o options) setBroker(config *hearth.Config[struct{}, struct{}]) (err error) {
	var rules []hearth.HistoryRule
	if o.history > 0 {
		rules = []hearth.HistoryRule{{Rooms: "kept:*", Size: o.history, Age: 5 * time.Minute}}
	}
	if o.redisURL != "" {
		config.Broker, err = redis.New(redis.Config{URL: o.redisURL, History: rules})
	} else if rules != nil {
		config.Broker = memory.NewBus(memory.Config{History: rules}).Broker()
	}
	return err
}

// serve runs until ctx ends, and then shuts down in order.
func serve(ctx context.Context, o options) error {
	b := &bench{}
	config := b.config(o.loops)
	config.Timeouts.Heartbeat, config.Timeouts.Drain = o.heartbeat, o.drain
	if o.resumeKey != "" {
		config.Resume.Enabled, config.Resume.Keys = true, [][]byte{[]byte(o.resumeKey)}
	}
	if o.encryption {
		config.Encryption.Mode = hearth.EncryptionOptional
	}
	if err := o.setBroker(&config); err != nil {
		return err
	}
	srv, err := hearth.New(config)
	if err != nil {
		return err
	}
	b.publish.server = srv
	if err := srv.Start(ctx); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/ws", srv)
	mux.HandleFunc("/authenticated", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, b.authenticated.Load())
	})
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { // ends when the listener is closed, below; the result is received from served
		if o.raw {
			served <- srv.Serve(ln, mux)
		} else {
			served <- web.Serve(ln)
		}
	}()
	collecting := collectOnSignal(ctx)
	fmt.Printf("READY %s\n", ln.Addr())

	select {
	case <-ctx.Done():
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	}
	ending, cancel := context.WithTimeout(context.Background(), o.drain+8*time.Second)
	defer cancel()
	return shutDown(ending, srv, web, b, served, collecting)
}

func shutDown(
	ctx context.Context, srv *hearth.Server[struct{}, struct{}], web *http.Server, b *bench, served <-chan error, collecting <-chan struct{},
) error {
	b.publish.stop()
	err := errors.Join(srv.Shutdown(ctx), web.Shutdown(ctx))
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) && !errors.Is(serveErr, hearth.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	<-collecting
	return err
}

// collectOnSignal releases memory at each SIGUSR2. It closes the channel when it has stopped.
func collectOnSignal(ctx context.Context) <-chan struct{} {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR2)
	done := make(chan struct{})
	go func() { // ends with ctx; shutDown waits for done
		defer close(done)
		defer signal.Stop(asked)
		for {
			select {
			case <-asked:
				debug.FreeOSMemory()
			case <-ctx.Done():
				return
			}
		}
	}()
	return done
}

// bench is the application: it accepts every client, echoes, and publishes on demand.
type bench struct {
	publish       publisher // its server is set before the first client connects
	authenticated atomic.Int64
}

func (b *bench) config(loops int) hearth.Config[struct{}, struct{}] {
	return hearth.Config[struct{}, struct{}]{
		Name:    "bench",
		Loops:   loops,
		Upgrade: hearth.Upgrade{Origins: []string{"*"}},
		// The load comes from six addresses, as fast as possible. The limits that protect a real
		// server from one address are raised for it, and not switched off, so their cost is
		// included.
		Limits: hearth.Limits{MaxConnections: most, MaxUnauthenticated: most, MaxUnauthenticatedPerAddr: most},
		Authenticate: func(context.Context, hearth.AuthRequest[struct{}]) (hearth.Identity[struct{}], error) {
			b.authenticated.Add(1)
			return hearth.Identity[struct{}]{}, nil
		},
		ValidateRooms: func(_ context.Context, _ *hearth.Client[struct{}], rooms []string) ([]string, error) {
			return rooms, nil
		},
		Message: b.message,
	}
}

func (b *bench) message(ctx context.Context, c *hearth.Client[struct{}], m hearth.Message) error {
	switch m.Event {
	case "e":
		return c.Send("e", m.Data)
	case "say":
		return b.publish.server.Local().Send(context.Background(), hearth.ToRoom(room), "m", m.Data)
	case "room":
		return b.sendToRoom(ctx, c, m)
	case "pub":
		var o order
		if err := json.Unmarshal(m.Data, &o); err != nil {
			return fmt.Errorf("read publish order: %w", err)
		}
		return b.publish.start(o)
	default:
		return nil
	}
}

// sendToRoom sends the data of a message to the room that it names, and tells the client when the
// broker has the message.
func (b *bench) sendToRoom(ctx context.Context, c *hearth.Client[struct{}], m hearth.Message) error {
	var to struct{ Room string }
	if err := json.Unmarshal(m.Data, &to); err != nil {
		return fmt.Errorf("read the room: %w", err)
	}
	if err := b.publish.server.Send(ctx, hearth.ToRoom(to.Room), "m", m.Data); err != nil {
		return err
	}
	return c.Send("sent", m.Data)
}
