package redis

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/resp"
)

// A router calls scripts on the servers that have the logs of rooms: on the master, or on the nodes
// of a Cluster that own their slots. It connects to a server when it is needed. Safe for concurrent
// use.
type router struct {
	config Config // read-only
	dialer *dialer
	accept resp.Options // read-only

	master masterCheck // owned by the holder of the gate of the master

	mu      sync.Mutex // guards the fields below
	servers map[string]*server
	gates   map[string]*gate    // by address
	silent  map[string]*silence // by address: nodes of a Cluster that did not answer in time
	slots   map[uint16]string   // of a Cluster: the address of a slot's owner; not complete
	guess   string              // of a Cluster: the node that is asked for other slots; empty: any
	closed  bool
}

// A server is a connection to one server that has logs.
type server struct {
	*conn

	used, checked time.Time // guarded by router.mu: the last reply, and the last check of its role
}

// A gate lets one goroutine at a time connect to an address, or check the connection.
type gate struct {
	ch    chan struct{} // has room for one
	users int           // guarded by router.mu; the last one removes the gate
}

// A silence is a node that did not answer in time. Calls to it fail at once for a while, because
// all messages wait for the answers to those before them.
type silence struct {
	until time.Time
	pause time.Duration // twice the last one
	err   error
}

// maxSilence is the longest time for which calls to a node fail at once.
const maxSilence = 30 * time.Second

// maxServers bounds the connections of a router. Beyond it, the one that was not used for longest
// is closed.
const maxServers = 256

// errNoRunID is returned for a server that does not tell its run id.
var errNoRunID = errors.New("it has no run_id and master_replid in INFO: history needs them")

func newRouter(c Config, d *dialer) *router {
	return &router{
		config: c, dialer: d, master: masterCheck{dialer: d},
		servers: map[string]*server{}, slots: map[uint16]string{}, gates: map[string]*gate{}, silent: map[string]*silence{},
		accept: resp.Options{
			MaxString: c.MaxMessage + maxPosition, MaxElements: broker.MaxHistorySize + partHeader,
			MaxReply: maxRead + c.MaxMessage + 64*broker.MaxHistorySize + 1<<20,
		},
	}
}

// readRunID asks the server for the name of the time in which it has its data without a gap: its
// run id, which is another one after each start, and its replication id, which is another one each
// time it becomes the master.
func (c *conn) readRunID(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	replies, err := c.Pipeline(ctx, []string{"INFO", "server"}, []string{"INFO", "replication"})
	if err != nil {
		return err
	}
	var ids []string
	for i, name := range []string{"run_id:", "master_replid:"} {
		text, err := replies[i].Text()
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), name); ok && id != "" {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) != 2 {
		return errNoRunID
	}
	// Every room stores it: Redis needs less than a third of the memory for a hash with short
	// values.
	sum := sha256.Sum256([]byte(ids[0] + ids[1]))
	c.runID.Store(new(base64.RawURLEncoding.EncodeToString(sum[:12])))
	return nil
}

// isStale reports whether a script found a log that was numbered under another run id than the one
// with which it was called. That one may be too old: the server has been a replica meanwhile, or
// got its first replica.
func isStale(reply resp.Value) bool {
	if err := reply.Err(); err != nil {
		return strings.HasPrefix(err.Error(), "STALE")
	}
	offset, err := reply.Int()
	return err == nil && offset < 0
}

// close closes all connections. It must not be called while a call is running.
func (r *router) close() {
	r.mu.Lock()
	r.closed = true
	servers := r.servers
	r.servers = nil
	r.mu.Unlock()
	for _, s := range servers {
		s.Close()
	}
	r.master.close()
}

// server returns a connection to the server at an address; empty: the master. reused reports that
// it was used before, so that it may be dead.
func (r *router) server(ctx context.Context, addr string) (s *server, reused bool, err error) {
	if s, fresh := r.known(addr); s != nil && fresh {
		return s, true, nil
	}
	if err := r.isSilent(addr); err != nil {
		return nil, false, err
	}
	leave, err := r.enter(ctx, addr)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	s, fresh := r.known(addr)
	if s != nil && !fresh {
		if err := r.check(ctx, s, addr); err != nil {
			r.drop(addr, s)
			s = nil
		}
	}
	if s != nil {
		return s, true, nil
	}
	s, err = r.connect(ctx, addr)
	return s, false, err
}

// enter waits at the gate of an address. The caller calls leave when it has connected.
func (r *router) enter(ctx context.Context, addr string) (leave func(), err error) {
	r.mu.Lock()
	g := r.gates[addr]
	if g == nil {
		g = &gate{ch: make(chan struct{}, 1)}
		r.gates[addr] = g
	}
	g.users++
	r.mu.Unlock()
	gone := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if g.users--; g.users == 0 {
			delete(r.gates, addr)
		}
	}
	select {
	case g.ch <- struct{}{}:
		return func() { <-g.ch; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}

// isSilent returns why calls to an address fail at once, nil if they do not.
func (r *router) isSilent(addr string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.silent[addr]; s != nil && time.Now().Before(s.until) {
		return s.err
	}
	return nil
}

// noteSilence records how a call to an address ended.
func (r *router) noteSilence(addr string, err error) {
	if !r.config.Cluster {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if reasonOf(err) != reasonTimeout {
		delete(r.silent, addr)
		return
	}
	if len(r.silent) >= maxServers {
		clear(r.silent)
	}
	s := r.silent[addr]
	if s == nil {
		s = &silence{pause: r.config.WriteTimeout}
		r.silent[addr] = s
	}
	if now := time.Now(); !now.Before(s.until) {
		s.until, s.err = now.Add(s.pause), err
		s.pause = min(2*s.pause, maxSilence)
	}
}

// known returns the connection to an address, nil if there is none. fresh reports whether it can be
// used without a check.
func (r *router) known(addr string) (s *server, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s = r.servers[addr]
	return s, s != nil && time.Since(s.used) < checkAfterIdle && time.Since(s.checked) < r.config.ProbeInterval
}

// check checks that a server answers, and is still the right one.
func (r *router) check(ctx context.Context, s *server, addr string) error {
	var err error
	if addr == "" {
		_, err = r.master.check(ctx, s.conn)
	} else {
		err = s.hello(ctx)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.used = time.Now()
	s.checked = s.used
	return nil
}

func (r *router) connect(ctx context.Context, addr string) (*server, error) {
	var c *conn
	var err error
	if addr == "" {
		c, err = r.dialer.open(ctx, r.accept)
	} else {
		c, err = r.dialer.openNode(ctx, addr, r.accept)
	}
	if err != nil {
		return nil, err
	}
	s := &server{conn: c, used: time.Now(), checked: time.Now()}
	if err := c.readRunID(ctx, r.config.WriteTimeout); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", c.addr, r.dialer.explain(lostConnection(err)))
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		c.Close()
		return nil, broker.ErrClosed
	}
	var oldest string
	for a, other := range r.servers {
		if oldest == "" || other.used.Before(r.servers[oldest].used) {
			oldest = a
		}
	}
	var surplus *server
	if len(r.servers) >= maxServers {
		surplus = r.servers[oldest]
		delete(r.servers, oldest)
	}
	r.servers[addr] = s
	r.mu.Unlock()
	if surplus != nil {
		surplus.Close()
	}
	return s, nil
}

// drop closes a connection that has failed.
func (r *router) drop(addr string, s *server) {
	s.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers[addr] == s {
		delete(r.servers, addr)
	}
}

// forget makes the next call for a slot ask another node than the given one for its owner.
func (r *router) forget(slot uint16, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.slots, slot)
	if r.guess == addr {
		r.guess = ""
	}
}

// owner returns the address for a call: empty for the master, and in a Cluster the owner of the
// slot. If the owner is not known, all calls go to the same node, so that they keep their order.
func (r *router) owner(slot uint16) string {
	if !r.config.Cluster {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if addr, ok := r.slots[slot]; ok {
		return addr
	}
	if r.guess == "" {
		r.guess = r.dialer.nextNode()
	}
	return r.guess
}

// A routed call is a scriptCall on its way to the right server.
type routed struct {
	call scriptCall
	slot uint16
	addr string // where to send it next
	ask  bool   // the server has to be told that it is asked for a slot that it is importing

	reply  resp.Value
	err    error // of the connection, or from connecting
	sent   bool  // a server may have got the call
	reused bool  // by a connection that was used before, and may have been dead
}

const (
	// maxRounds bounds how often calls are sent again because the server was not the right one.
	maxRounds = 200

	// roundPause is the pause before a call is sent again for a slot that is on its way.
	roundPause = 25 * time.Millisecond
)

// call calls scripts, and returns when each has a reply or an error. The calls for one room run in
// their order. repeatable says that a call may be sent again if it is not known whether a server
// has executed it.
func (r *router) call(ctx context.Context, calls []scriptCall, repeatable bool) []routed {
	all := make([]routed, len(calls))
	todo := make([]*routed, len(calls))
	for i, call := range calls {
		all[i] = routed{call: call, slot: slotOf(call.keys[0])}
		all[i].addr = r.owner(all[i].slot)
		todo[i] = &all[i]
	}
	for round := range maxRounds {
		r.callServers(ctx, todo)
		pause := false
		again := todo[:0]
		for _, c := range todo {
			switch r.next(c, round, repeatable) {
			case sendAgain:
				again = append(again, c)
			case sendLater:
				again, pause = append(again, c), true
			case callDone:
			}
		}
		if todo = again; len(todo) == 0 || ctx.Err() != nil || pause && !wait(ctx, roundPause) {
			break
		}
	}
	return all
}

// wait waits, and reports whether ctx has not ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// callServers sends calls to their servers, to all servers at the same time.
func (r *router) callServers(ctx context.Context, calls []*routed) {
	servers := map[string][]*routed{}
	for _, c := range calls {
		servers[c.addr] = append(servers[c.addr], c)
	}
	var all sync.WaitGroup
	for addr, calls := range servers {
		all.Go(func() { r.callServer(ctx, addr, calls) }) // ends with the replies, or with ctx
	}
	all.Wait()
}

// callServer sends calls to one server in one pipeline.
func (r *router) callServer(ctx context.Context, addr string, calls []*routed) {
	s, reused, err := r.server(ctx, addr)
	if err != nil {
		r.noteSilence(addr, err)
		for _, c := range calls {
			c.err, c.sent, c.reused = err, false, false
		}
		return
	}
	scripts := scripts{runID: *s.runID.Load()}
	var commands [][]string
	for _, c := range calls {
		if c.ask {
			commands = append(commands, []string{"ASKING"})
		}
		commands = append(commands, scripts.command(c.call))
	}
	replies, err := s.Pipeline(ctx, commands...)
	r.noteSilence(addr, err)
	if err != nil {
		err = fmt.Errorf("%s: %w", s.addr, lostConnection(err))
		r.drop(addr, s)
	} else {
		r.mu.Lock()
		s.used = time.Now()
		r.mu.Unlock()
	}
	if err == nil && slices.ContainsFunc(replies, isStale) && s.readRunID(ctx, r.config.WriteTimeout) != nil {
		r.drop(addr, s)
	}
	i := 0
	for _, c := range calls {
		if c.ask {
			i++
		}
		c.reply, c.err, c.sent, c.reused = resp.Value{}, err, true, reused
		if i < len(replies) {
			c.reply, c.err = replies[i], nil
		}
		if isReplica(c.reply) {
			r.drop(addr, s)
		}
		i++
	}
}

// A step is what happens to a call next.
type step uint8

const (
	callDone  step = iota
	sendAgain      // at once
	sendLater      // after a pause
)

// next decides what happens to a call that has been sent.
func (r *router) next(c *routed, round int, repeatable bool) step {
	c.ask = false
	if c.err != nil {
		r.forget(c.slot, c.addr)
		if !c.sent && r.config.Cluster && round < r.dialer.countNodes() || c.sent && c.reused && repeatable {
			c.addr = r.owner(c.slot)
			return sendAgain
		}
		return callDone
	}
	err := c.reply.Err()
	if err == nil {
		return callDone
	}
	switch code, rest, _ := strings.Cut(err.Error(), " "); code {
	case "NOSCRIPT":
		return sendAgain
	case "STALE": // the run id has been read again
		c.call.args = append(slices.Clone(c.call.args[:len(c.call.args)-1]), "1")
		return sendAgain
	case "READONLY":
		if round == 0 {
			return sendAgain
		}
	case "TRYAGAIN":
		return sendLater
	case "MOVED", "ASK":
		_, addr, _ := strings.Cut(rest, " ")
		if addr = addressIn(addr, c.addr); addr == "" || !r.config.Cluster {
			return callDone
		}
		c.addr, c.ask = addr, code == "ASK"
		if !c.ask {
			r.mu.Lock()
			r.slots[c.slot] = addr
			r.mu.Unlock()
		}
		if round < 2 {
			return sendAgain
		}
		return sendLater // the nodes do not agree yet
	}
	return callDone
}

// addressIn returns the address in a redirection by a server. Without a host it is on the same
// host.
func addressIn(text, from string) string {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return ""
	}
	host, port := strings.Trim(text[:i], "[]"), text[i+1:]
	if host == "" || host == "?" {
		host, _, _ = net.SplitHostPort(from)
	}
	if host == "" || port == "" {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// isReplica reports whether a server rejected a script because it is no longer the master.
func isReplica(reply resp.Value) bool {
	err := reply.Err()
	return err != nil && strings.HasPrefix(err.Error(), "READONLY")
}

// slotOf returns the slot of a key with a hash tag: the CRC-16 (XMODEM) of the tag, modulo the
// number of slots.
func slotOf(key string) uint16 {
	_, tag, _ := strings.Cut(key, "{")
	tag, _, _ = strings.Cut(tag, "}")
	var crc uint16
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			if crc <<= 1; carry {
				crc ^= 0x1021
			}
		}
	}
	return crc % (1 << 14)
}
