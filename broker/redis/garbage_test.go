package redis_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// garbage are replies that no Redis sends and that some RESP readers do not survive.
var garbage = map[string]string{
	"http":            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
	"TLS alert":       "\x15\x03\x01\x00\x02\x02\x46",
	"bytes":           "\x00\xff\xfe\x80garbage\r\n",
	"huge bulk":       "$999999999999\r\n",
	"huge array":      "*1000000000\r\n",
	"huge map":        "%1000000000\r\n",
	"overflow":        "$18446744073709551615\r\n",
	"negative bulk":   "$-2\r\n",
	"negative array":  "*-3\r\n",
	"negative map":    "%-1\r\n",
	"nested":          strings.Repeat("*1\r\n", 4<<20),
	"endless line":    "+" + strings.Repeat("x", 1<<20),
	"no number":       "$x\r\n",
	"body too long":   ">2\r\n$1\r\nxyz\r\n",
	"odd boolean":     "#tt\r\n",
	"chunks":          "$?\r\n;4\r\nabcd\r\n;0\r\n",
	"attribute":       "|1\r\n+a\r\n+b\r\n+c\r\n",
	"empty push":      ">0\r\n",
	"push of numbers": ">3\r\n:1\r\n:2\r\n:3\r\n",
	"short message":   ">2\r\n$7\r\nmessage\r\n$1\r\nc\r\n",
	"message of null": ">3\r\n$7\r\nmessage\r\n$-1\r\n$-1\r\n",
	"odd message":     ">3\r\n$7\r\nmessage\r\n:1\r\n*0\r\n",
	"subscribed":      ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
	"unsubscribed":    ">3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:1\r\n",
	"sharded":         ">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:1\r\n",
}

// unrequested are well-formed replies without a command.
var unrequested = map[string]string{
	"reply": "+OK\r\n", "error": "-ERR x\r\n", "number": ":1\r\n", "queued": "+QUEUED\r\n", "pong": "+PONG\r\n", "map": "%1\r\n+a\r\n+b\r\n",
}

// serveClients starts a server that calls talk for each client, on a goroutine of its own.
func serveClients(t *testing.T, talk func(conn net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	all.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { // ends when the client has closed
				defer func() { _ = conn.Close() }()
				talk(conn)
			})
		}
	})
	return l.Addr().String()
}

// serveBytes starts a server that answers the first command with the given bytes.
func serveBytes(t *testing.T, answer string) (addr string) {
	t.Helper()
	return serveClients(t, func(conn net.Conn) {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			_, _ = io.WriteString(conn, answer)
			_, _ = io.Copy(io.Discard, conn)
		}
	})
}

// TestStartRejectsGarbage checks that a server that is no Redis is reported as such, at once, and
// does no harm.
func TestStartRejectsGarbage(t *testing.T) {
	t.Parallel()
	for name, answer := range garbage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			b := newBroker(t, calm(t, "redis://"+serveBytes(t, answer)))
			defer func() { _ = b.Close() }()
			err := b.Start(ctx(t), receiver)
			if err == nil || !strings.Contains(err.Error(), "not a Redis server") || !strings.Contains(err.Error(), "check the address") {
				t.Errorf("start: %v", err)
			}
			if took := time.Since(began); took > testTimeout/2 {
				t.Errorf("it took %v to return %v", took, err)
			}
		})
	}
	for name, answer := range map[string]string{"silence": "", "half": "%7\r\n$6\r\nserv"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := quick(t, "redis://"+serveBytes(t, answer))
			c.DialTimeout, c.ConnectTimeout = 100*time.Millisecond, 2*time.Second
			b := newBroker(t, c)
			defer func() { _ = b.Close() }()
			if err := b.Start(ctx(t), receiver); err == nil || !strings.Contains(err.Error(), "no answer") {
				t.Errorf("start: %v", err)
			}
		})
	}
}

// A proxy stands before a Redis and can send more than that does.
type proxy struct {
	t        *testing.T
	listener net.Listener
	redis    string
	all      sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	conns []*proxyConn
}

// A proxyConn is one connection through a proxy.
type proxyConn struct {
	client, redis net.Conn

	mu         sync.Mutex // guards the field below, and writes to client
	subscribes bool
}

func startProxy(t *testing.T, redis string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &proxy{t: t, listener: l, redis: redis}
	m.all.Go(m.accept) // ends with the listener, as do the connections
	t.Cleanup(func() {
		_ = l.Close()
		for _, c := range m.current() {
			_ = c.client.Close()
			_ = c.redis.Close()
		}
		m.all.Wait()
	})
	return m
}

func (m *proxy) current() []*proxyConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conns
}

func (m *proxy) accept() {
	for {
		client, err := m.listener.Accept()
		if err != nil {
			return
		}
		redis, err := net.Dial("tcp", m.redis)
		if err != nil {
			m.t.Error(err)
			return
		}
		c := &proxyConn{client: client, redis: redis}
		m.mu.Lock()
		m.conns = append(m.conns, c)
		m.mu.Unlock()
		m.all.Go(func() { c.copy(redis, client, c.toServer) })
		m.all.Go(func() { c.copy(client, redis, c.toClient) })
	}
}

func (c *proxyConn) copy(_, from net.Conn, take func([]byte) error) {
	defer func() { _ = c.client.Close(); _ = c.redis.Close() }()
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if n > 0 && take(b[:n]) != nil || err != nil {
			return
		}
	}
}

func (c *proxyConn) toServer(b []byte) error {
	c.mu.Lock()
	c.subscribes = c.subscribes || bytes.Contains(b, []byte("SUBSCRIBE"))
	c.mu.Unlock()
	_, err := c.redis.Write(b)
	return err
}

func (c *proxyConn) toClient(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.client.Write(b)
	return err
}

// inject sends text to the newest connection of the two kinds.
func (m *proxy) inject(text string, toSubscription bool) {
	m.t.Helper()
	conns := m.current()
	for i := len(conns) - 1; i >= 0; i-- {
		conns[i].mu.Lock()
		found := conns[i].subscribes == toSubscription
		conns[i].mu.Unlock()
		if found {
			_ = conns[i].toClient([]byte(text)) // an error means that it was closed meanwhile
			return
		}
	}
	m.t.Fatal("no such connection")
}

// TestGarbageOnGoodConnection checks that garbage on a working connection ends the connection, not
// the process. A loss is reported, and everything works again.
func TestGarbageOnGoodConnection(t *testing.T) {
	slow(t)
	for _, list := range []map[string]string{garbage, unrequested} {
		for name, text := range list {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				m := startProxy(t, server.Addr)
				n, other := startNode(t, "n", calm(t, "redis://"+m.listener.Addr().String())), startNode(t, "other", calm(t, server.URL()))
				if err := n.Hold(ctx(t), protocol.RoomChannel("r")); err != nil {
					t.Fatal(err)
				}
				m.inject(text, true)
				if l := n.nextLoss(); l.Cause == nil || !strings.Contains(l.Cause.Error(), "Redis") {
					t.Errorf("lost %+v", l)
				}
				n.awaitState(broker.StateOK)
				other.confirm(other.room("r", "again"))
				if got := n.next().Event; got != "again" {
					t.Errorf("got %q", got)
				}
				m.inject(text, false)
				n.confirm(n.broadcast("out"))
				if got := other.next().Event; got != "out" {
					t.Errorf("the other got %q", got)
				}
			})
		}
	}
}

// TestHugeMessages checks that messages that are too large cost neither the connection nor memory.
func TestHugeMessages(t *testing.T) {
	slow(t)
	// Redis closes a subscriber when 32 MiB wait. Three messages of 20 MiB may wait on a busy
	// machine.
	server := redistest.Start(t, "client-output-buffer-limit pubsub 0 0 0")
	c := calm(t, server.URL())
	c.MaxMessage = 100 << 10
	for name, patterns := range map[string]bool{"exact": false, "patterns": true} {
		t.Run(name, func(t *testing.T) {
			c.Patterns = patterns
			n := startNode(t, "n", c)
			if err := n.Hold(ctx(t), protocol.RoomChannel("r")); err != nil {
				t.Fatal(err)
			}
			huge := strings.Repeat("x", 20<<20)
			for range 3 {
				server.Do("PUBLISH", protocol.RoomChannel("r"), huge)
				server.Do("PUBLISH", protocol.RoomChannel("r"), huge[:c.MaxMessage+1])
				if patterns {
					server.Do("PUBLISH", protocol.RoomChannel(huge), `{"serverId":"x","type":"broadcast","event":"in a channel too long"}`)
				}
			}
			server.Do("PUBLISH", protocol.RoomChannel("r"), `{"serverId":"x","type":"room","target":"r","event":"small"}`)
			if got := n.next().Event; got != "small" {
				t.Errorf("got %q", got)
			}
			want := uint64(6)
			if patterns {
				want = 9
			}
			if h := n.Health(); h.Malformed != want || h.Losses != 0 || h.State != broker.StateOK {
				t.Errorf("health is %+v, want %d malformed", h, want)
			}
		})
	}
}

// TestUnsubscribeWhileRedisFails empties rooms while Redis answers some commands with errors,
// because its disk is full, a script runs, or it is a stale replica. That does no harm.
func TestUnsubscribeWhileRedisFails(t *testing.T) {
	slow(t)
	for name, tt := range map[string]struct {
		begin, end func(*testing.T, *redistest.Server)
		rejected   string // in the error for UNSUBSCRIBE; "" if it succeeds
	}{
		"disk full": {begin: fillDisk, end: func(_ *testing.T, s *redistest.Server) { s.Do("CONFIG", "SET", "save", "") }},
		"stale replica": {
			begin: func(_ *testing.T, s *redistest.Server) {
				s.Do("CONFIG", "SET", "replica-serve-stale-data", "no")
				s.Do("REPLICAOF", "127.0.0.1", "1")
			},
			end: func(_ *testing.T, s *redistest.Server) { s.Do("REPLICAOF", "NO", "ONE") },
		},
		"script": {begin: runScript, end: killScript, rejected: "busy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "busy-reply-threshold 50")
			n := startNode(t, "n", quick(t, server.URL()))
			held := []string{protocol.RoomChannel("a"), protocol.RoomChannel("b")}
			if err := n.Hold(ctx(t), held...); err != nil {
				t.Fatal(err)
			}
			tt.begin(t, server)
			for _, channel := range held {
				n.Release(channel)
				await(t, "unsubscribe "+channel, func() bool {
					if h := n.Health(); tt.rejected != "" {
						return h.Err != nil && strings.Contains(h.Err.Error(), tt.rejected)
					}
					list, err := server.Do("PUBSUB", "CHANNELS", channel).Strings()
					return err == nil && len(list) == 0
				})
			}
			tt.end(t, server)
			n.awaitState(broker.StateOK)
			for range 2 { // a HELLO on the subscription's connection precedes each probe
				before := stat(t, server, "cmdstat_publish:")
				await(t, "a probe", func() bool { return stat(t, server, "cmdstat_publish:") != before })
			}
			if err := n.Hold(ctx(t), held[0]); err != nil {
				t.Fatal(err)
			}
			server.Do("PUBLISH", held[0], `{"serverId":"x","type":"room","target":"a","event":"e"}`)
			if got := n.next().Event; got != "e" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// fillDisk makes s fail to save its data, as when the disk is full.
func fillDisk(t *testing.T, s *redistest.Server) {
	t.Helper()
	dir, err := s.Do("CONFIG", "GET", "dir").Get("dir").Text()
	if err != nil {
		t.Fatal(err)
	}
	// A file cannot replace a folder.
	if err := os.Mkdir(filepath.Join(dir, "dump.rdb"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Do("CONFIG", "SET", "save", "3600 1")
	s.Do("BGSAVE")
	await(t, "a failed save", func() bool {
		text, _ := s.Do("INFO", "persistence").Text()
		return strings.Contains(text, "rdb_last_bgsave_status:err")
	})
}

// killScript ends the script and waits until Redis executes commands again: SCRIPT KILL returns
// before the script has stopped.
func killScript(t *testing.T, s *redistest.Server) {
	t.Helper()
	s.Do("SCRIPT", "KILL")
	await(t, "the end of the script", func() bool {
		_, err := s.Do("PING").Text()
		return err == nil
	})
}

// runScript keeps s busy with a script that never ends.
func runScript(t *testing.T, s *redistest.Server) {
	t.Helper()
	for _, command := range []string{"EVAL 'while true do end' 0\r\n", "PING\r\n"} {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, command); err != nil {
			t.Fatal(err)
		}
		// Redis answers as soon as it notices how long the script takes.
		if strings.HasPrefix(command, "PING") {
			if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "-BUSY") {
				t.Fatalf("PING: %q, %v", line, err)
			}
		}
	}
}
