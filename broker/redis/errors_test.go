package redis_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// awaitReason waits until the broker has the state and the reason.
func (n *node) awaitReason(state broker.State, reason string) broker.Health {
	n.t.Helper()
	var h broker.Health
	await(n.t, state.String()+", "+reason, func() bool {
		h = n.Health()
		return h.State == state && h.Reason == reason
	})
	return h
}

// TestReason checks that a broker that is not ok says why, and since when, and that it does not
// afterwards.
func TestReason(t *testing.T) {
	slow(t)
	acl := func(s *redistest.Server, rules ...string) {
		s.Do(append([]string{"ACL", "SETUSER", "node"}, rules...)...)
	}
	for name, tt := range map[string]struct {
		state  broker.State
		reason string
		fail   func(s *redistest.Server)
		mend   func(s *redistest.Server)
	}{
		"killed": {broker.StateDown, "refused", (*redistest.Server).Kill, (*redistest.Server).Restart},
		"frozen": {broker.StateDown, "timeout", (*redistest.Server).Freeze, (*redistest.Server).Thaw},
		"password": {broker.StateDown, "auth", func(s *redistest.Server) {
			acl(s, "resetpass", ">other")
			s.Do("CLIENT", "KILL", "TYPE", "pubsub")
		}, func(s *redistest.Server) { acl(s, ">letmein") }},
		"may not subscribe": {broker.StateDown, "permission", func(s *redistest.Server) {
			acl(s, "-subscribe")
			s.Do("CLIENT", "KILL", "TYPE", "pubsub")
		}, func(s *redistest.Server) { acl(s, "+subscribe") }},
		"may not publish": {broker.StateDegraded, "permission",
			func(s *redistest.Server) { acl(s, "-publish") }, func(s *redistest.Server) { acl(s, "+publish") }},
		"a room is refused": {broker.StateDegraded, "permission", func(s *redistest.Server) {
			acl(s, "resetchannels", "&hearth:*", "&ws:broadcast") // closes a connection
		}, func(s *redistest.Server) { acl(s, "allchannels") }},
		"replica": {broker.StateDown, "replica",
			func(s *redistest.Server) { s.Do("REPLICAOF", "127.0.0.1", "1") }, func(s *redistest.Server) { s.Do("REPLICAOF", "NO", "ONE") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "user node on >letmein +@all ~* allchannels")
			n := startNode(t, "n", quick(t, "redis://node:letmein@"+server.Addr))
			if err := n.Hold(ctx(t), protocol.RoomChannel("r")); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			tt.fail(server)
			h := n.awaitReason(tt.state, tt.reason)
			if h.Since.Before(began) || h.Since.After(time.Now()) || h.Err == nil {
				t.Errorf("failed after %v, health is %+v", began, h)
			}
			tt.mend(server)
			n.awaitReason(broker.StateOK, "")
		})
	}
}

// serveError starts a server that answers each command with the same error.
func serveError(t *testing.T, text string) (addr string) {
	t.Helper()
	return serveClients(t, func(conn net.Conn) {
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "*") {
				_, _ = fmt.Fprintf(conn, "-%s\r\n", text)
			}
		}
	})
}

// TestStartReason checks the reason of a broker that cannot start.
func TestStartReason(t *testing.T) {
	t.Parallel()
	server, full := redistest.Start(t), redistest.Start(t)
	startNode(t, "first", calm(t, full.URL()))
	full.Do("CONFIG", "SET", "maxclients", "2")
	_, open := redistest.StartTLS(t, "tls-auth-clients no")
	for name, tt := range map[string]struct {
		url, reason string
		tls         *tls.Config
	}{
		"nobody":        {"redis://127.0.0.1:1", "refused", nil},
		"no socket":     {"unix://" + t.TempDir() + "/none.sock", "refused", nil},
		"silence":       {"redis://" + serveBytes(t, ""), "timeout", nil},
		"password":      {"redis://" + serveError(t, "WRONGPASS invalid"), "auth", nil},
		"none given":    {"redis://" + serveError(t, "NOAUTH Authentication required."), "auth", nil},
		"hello refused": {"redis://" + serveError(t, "NOPERM no permissions"), "permission", nil},
		"loading":       {"redis://" + serveError(t, "LOADING Redis is loading the dataset in memory"), "loading", nil},
		"busy":          {"redis://" + serveError(t, "BUSY Redis is busy running a script"), "busy", nil},
		"disk":          {"redis://" + serveError(t, "MISCONF Redis is configured to save RDB snapshots"), "misconf", nil},
		"memory":        {"redis://" + serveError(t, "OOM command not allowed"), "oom", nil},
		"cluster down":  {"redis://" + serveError(t, "CLUSTERDOWN The cluster is down"), "cluster-down", nil},
		"clients":       {full.URL(), "max-clients", nil},
		"web server":    {"redis://" + serveBytes(t, garbage["http"]), "wrong-server", nil},
		"no cluster":    {server.URL() + "?cluster=true", "wrong-server", nil},
		"database":      {server.URL() + "/99", "database", nil},
		"secret quoted": {"redis://:s3cret@" + serveError(t, "WRONGPASS no user has s3cret"), "auth", nil},
		"something":     {"redis://" + serveError(t, "ERR something new"), "other", nil},
		"two nodes":     {"redis://127.0.0.1:1?cluster=true&addr=" + serveError(t, "WRONGPASS invalid"), "auth", nil},
		"not trusted":   {"rediss://" + open.Addr, "tls", trust(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := calm(t, tt.url)
			c.TLS = tt.tls
			if name == "silence" {
				c.DialTimeout = 100 * time.Millisecond
			}
			b := newBroker(t, c)
			ctx, cancel := context.WithCancel(ctx(t))
			defer cancel()
			started := make(chan error, 1)
			go func() { started <- b.Start(ctx, receiver) }() // received below
			await(t, tt.reason, func() bool { return b.Health().Reason == tt.reason })
			cancel()
			if err := <-started; err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("start: %v", err)
			}
			if h := b.Health(); h.State != broker.StateIdle || h.Reason != tt.reason || strings.Contains(h.Err.Error(), "s3cret") {
				t.Errorf("health is %+v, want the reason %q", h, tt.reason)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if h := b.Health(); h.Reason != "" {
				t.Errorf("after Close the reason is %q", h.Reason)
			}
		})
	}
}

// TestRejectionIsLogged checks that a rejection is logged when it begins and when it ends, however
// many messages there are.
func TestRejectionIsLogged(t *testing.T) {
	slow(t)
	server := redistest.Start(t, "user node on >letmein +@all ~* allchannels")
	c := calm(t, "redis://node:letmein@"+server.Addr)
	var log logBuffer
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	n := startNode(t, "n", c)
	server.Do("ACL", "SETUSER", "node", "-publish")
	n.publish(n.broadcast("refused"))
	n.publish(n.broadcast("refused, too"))
	n.awaitReason(broker.StateDegraded, "permission")
	log.await(t, "dropped")
	server.Do("ACL", "SETUSER", "node", "+publish")
	n.awaitReason(broker.StateOK, "")
	log.await(t, "accepts messages to other nodes again")
	n.confirm(n.broadcast("taken"))
	n.confirm(n.broadcast("taken, too"))
	if text := log.String(); strings.Count(text, "to other nodes again") != 1 || !strings.Contains(text, "reason=permission") {
		t.Error(text)
	}
}

// TestRejectionWithoutReasonIsLogged checks that the reason of an unknown rejection is "other".
func TestRejectionWithoutReasonIsLogged(t *testing.T) {
	t.Parallel()
	c := calm(t, redistest.Start(t, `rename-command PUBLISH ""`).URL())
	var log logBuffer
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	b := newBroker(t, c)
	defer func() { _ = b.Close() }()
	if err := b.Publish(ctx(t), protocol.Message{ServerID: "s", Type: protocol.TypeBroadcast, Event: "e", Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	log.await(t, "dropped")
	if text := log.String(); !strings.Contains(text, "reason=other") {
		t.Error(text)
	}
}

// A logBuffer keeps the text of a log.
type logBuffer struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logBuffer) await(t *testing.T, text string) {
	t.Helper()
	await(t, text, func() bool { return strings.Contains(l.String(), text) })
}

// TestReasonsAreExplained checks that the package comment and the operations manual explain each
// reason.
func TestReasonsAreExplained(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"doc.go", "../../docs/operations.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range redis.Reasons() {
			if !strings.Contains(string(text), "`"+word+"`") && !strings.Contains(string(text), "\t"+word+" ") {
				t.Errorf("%s does not mention %q", file, word)
			}
		}
	}
}
