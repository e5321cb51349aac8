package redis

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// A wire is one connection to one Redis server, logged in. When it fails it stays failed: whoever uses it asks the
// dialer for another, which may lead elsewhere.
type wire struct {
	addr   string
	role   string // master, replica, cluster or sentinel, as the server said last
	client rueidis.Client
	redis  rueidis.DedicatedClient
	dead   <-chan error // closed when no more messages come; nil on a wire that does not subscribe

	// Of a wire that subscribes: true when it is kept for what others still publish there. It proves nothing any more.
	demoted *atomic.Bool

	mu     sync.Mutex
	conn   net.Conn // nil before it is dialed
	closed bool
}

// errUnused answers the connection that every rueidis client makes at first, for commands that anyone may send. Both of
// ours are dedicated ones: one goroutine's pipelines, and one for the subscription.
var errUnused = errors.New("redis: not used")

// A login is whom a wire is for.
type login struct {
	username, password string
	db                 int
}

// hooks are what a wire for a subscription calls, on the goroutine that reads from it.
type hooks struct {
	message func(incoming)
	reading func() // about to read: what came has been handed over
	max     int    // bytes of a message that is wanted; of a larger one only the size is told
}

// connect dials, logs in, and asks who is there. With hooks the wire is one for a subscription.
func (d *dialer) connect(ctx context.Context, addr string, as login, h *hooks) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	w := &wire{addr: addr}
	stop := context.AfterFunc(ctx, w.cut)
	defer stop()
	dialed := false
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:       []string{addr},
		ForceSingleClient: true,
		Username:          as.username, Password: as.password, SelectDB: as.db,
		ClientName: d.config.ClientName, ClientSetInfo: rueidis.DisableClientSetInfo,
		DisableRetry: true, // what may have been sent once is never sent twice
		DisableCache: true,
		// Probes take the place of rueidis' own pings. The timeout is for pipelines; a subscription has none.
		Dialer:              net.Dialer{Timeout: d.config.DialTimeout, KeepAlive: -1},
		ConnWriteTimeout:    d.config.WriteTimeout,
		RingScaleEachConn:   4, // one goroutine sends
		PipelineMultiplex:   -1,
		ReadBufferEachConn:  1 << 12,
		WriteBufferEachConn: 1 << 16,
		DialCtxFn: func(context.Context, string, *net.Dialer, *tlsConfig) (net.Conn, error) {
			if !dialed {
				dialed = true
				return nil, errUnused
			}
			return w.dial(ctx, d, h)
		},
	})
	if client == nil {
		return nil, err
	}
	w.client = client
	w.redis, _ = client.Dedicate() // given back by Close
	if h != nil {
		// Messages do not get as far as rueidis, but without a hook it would not say when the connection ends.
		w.dead = w.redis.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
	}
	if err := w.hello(ctx); err != nil {
		w.close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, d.ungreeted(err)
	}
	return w, nil
}

func (w *wire) dial(ctx context.Context, d *dialer, h *hooks) (net.Conn, error) {
	conn, err := d.dial(ctx, w.addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	w.conn = newGuard(conn, h)
	return w.conn, nil
}

// hello asks the server who it is: that it answers, and whether others' messages get there.
func (w *wire) hello(ctx context.Context) error {
	answer, err := w.do(ctx, w.redis.B().Arbitrary("HELLO").Build()).AsMap()
	if err != nil {
		return err
	}
	if proto := answer["proto"]; mustInt(proto.AsInt64()) < 3 {
		return errOldRedis
	}
	role, mode := answer["role"], answer["mode"]
	w.role, _ = role.ToString()
	if m, _ := mode.ToString(); m == "cluster" || m == "sentinel" {
		w.role = m
	}
	return nil
}

func mustInt(v int64, err error) int64 {
	if err != nil {
		return 0
	}
	return v
}

// do sends one command; one goroutine at a time.
func (w *wire) do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	return w.redis.Do(ctx, command)
}

// cut closes the socket: everything that uses it fails at once. Any goroutine.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.conn != nil {
		_ = w.conn.Close()
	}
}

// close frees what belongs to w, and returns when no hook runs any more. Not while do is running.
func (w *wire) close() {
	w.cut() // first, or rueidis would ask a server that is silent for its last words
	if w.dead != nil {
		for range w.dead { // closed by the goroutine that reads, at its end
		}
	}
	w.redis.Close()
	w.client.Close()
}

// lostConnection makes of what rueidis says about a connection that ended something to read.
func lostConnection(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, rueidis.ErrClosing) || errors.Is(err, net.ErrClosed) {
		return errConnection
	}
	return err
}
