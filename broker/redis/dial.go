package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/resp"
)

// The ways in which a Redis is not one to work with.
var (
	errOldRedis    = errors.New("it does not speak RESP3: Redis 6 or later is needed")
	errReplica     = errors.New("it is a replica: what is published there reaches nobody else")
	errNoCluster   = errors.New("it is not a node of a Cluster")
	errNoMaster    = errors.New("it knows no master of that name")
	errSentinel    = errors.New("it is a Sentinel")
	errOtherMaster = errors.New("the Sentinels name another master")
	errConnection  = errors.New("the connection was closed")
)

// A dialer finds Redis: it makes wires to wherever messages of all nodes go.
type dialer struct {
	config  Config // read-only, with defaults
	secrets []string

	mu        sync.Mutex // guards the fields below
	nodes     []string   // of a Cluster: those given and those found, the next to try first
	sentinels []string   // those that have failed go to the end
}

func newDialer(c Config) *dialer {
	d := &dialer{config: c, nodes: slices.Clone(c.Addrs), sentinels: slices.Clone(c.Addrs)}
	rand.Shuffle(len(d.nodes), func(i, j int) { d.nodes[i], d.nodes[j] = d.nodes[j], d.nodes[i] })
	for _, secret := range []string{c.Password, c.Sentinel.Password} {
		if secret != "" {
			d.secrets = append(d.secrets, secret)
		}
	}
	return d
}

// open makes a wire to the master, or to any node of a Cluster. Its errors name the addresses that it tried.
func (d *dialer) open(ctx context.Context, accept resp.Options) (*conn, error) {
	var c *conn
	var err error
	switch {
	case d.config.Sentinel.MasterSet != "":
		c, err = d.openBySentinel(ctx, accept)
	case d.config.Cluster:
		c, err = d.openInCluster(ctx, accept)
	default:
		c, err = d.connectMaster(ctx, d.config.Addrs[0], accept)
	}
	if err != nil {
		return nil, d.explain(err)
	}
	return c, nil
}

func (d *dialer) redisLogin() login {
	return login{username: d.config.Username, password: d.config.Password, db: d.config.DB}
}

// toMaster connects to addr, which must not be a replica.
func (d *dialer) connectMaster(ctx context.Context, addr string, accept resp.Options) (*conn, error) {
	c, err := d.connect(ctx, addr, d.redisLogin(), accept)
	if err == nil {
		if err = c.usable(); err != nil {
			c.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	return c, nil
}

// bySentinel asks one Sentinel after the other for the master, until one knows one that answers as such.
func (d *dialer) openBySentinel(ctx context.Context, accept resp.Options) (*conn, error) {
	var failed []error
	for _, sentinel := range d.sentinelOrder() {
		addr, err := d.findMaster(ctx, sentinel)
		if err == nil {
			var c *conn
			if c, err = d.connectMaster(ctx, addr, accept); err == nil {
				return c, nil
			}
		} else {
			d.demote(sentinel)
		}
		failed = append(failed, fmt.Errorf("by Sentinel %s: %w", sentinel, err))
	}
	return nil, joinErrors(failed)
}

// bestSentinels are all, those that answered last before those that did not.
func (d *dialer) sentinelOrder() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sentinels)
}

// demote has others asked before a Sentinel that did not answer: to wait for one that is silent takes long.
func (d *dialer) demote(sentinel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.sentinels, sentinel); i >= 0 {
		d.sentinels = append(slices.Delete(d.sentinels, i, i+1), sentinel)
	}
}

func (d *dialer) findMaster(ctx context.Context, sentinel string) (string, error) {
	c, err := d.connectSentinel(ctx, sentinel)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return d.queryMaster(ctx, c)
}

func (d *dialer) connectSentinel(ctx context.Context, sentinel string) (*conn, error) {
	s := d.config.Sentinel
	return d.connect(ctx, sentinel, login{username: s.Username, password: s.Password}, resp.Options{})
}

// masterBy is the address of the master, by c's Sentinel.
func (d *dialer) queryMaster(ctx context.Context, c *conn) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	name := d.config.Sentinel.MasterSet
	reply, err := c.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
	if err != nil {
		return "", err
	}
	address, err := reply.Strings() // null: it does not know the name
	if err != nil || len(address) != 2 {
		return "", errNoMaster
	}
	return net.JoinHostPort(address[0], address[1]), nil
}

// inCluster connects to the first node that answers, another one each time: Pub/Sub of a Cluster is one, wherever one
// enters it.
func (d *dialer) openInCluster(ctx context.Context, accept resp.Options) (*conn, error) {
	var failed []error
	for range d.countNodes() {
		addr := d.nextNode()
		c, err := d.connect(ctx, addr, d.redisLogin(), accept)
		if err == nil {
			if err = d.learnNodes(ctx, c); err == nil {
				return c, nil
			}
			c.Close()
		}
		failed = append(failed, fmt.Errorf("%s: %w", addr, err))
	}
	return nil, joinErrors(failed)
}

func (d *dialer) countNodes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.nodes)
}

// nextNode takes turns, so the two wires of a broker are to different nodes, and a probe passes from one to the other.
func (d *dialer) nextNode() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	addr := d.nodes[0]
	d.nodes = append(d.nodes[1:], addr)
	return addr
}

// learnNodes asks c's server for the other nodes.
func (d *dialer) learnNodes(ctx context.Context, c *conn) error {
	if c.role != "cluster" {
		return errNoCluster
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	reply, err := c.Do(ctx, "CLUSTER", "SLOTS")
	if err != nil {
		return fmt.Errorf("ask for the nodes: %w", err)
	}
	ranges, err := reply.Array()
	if err != nil {
		return fmt.Errorf("ask for the nodes: %w", err)
	}
	host, _, _ := net.SplitHostPort(c.addr)
	all := slices.Clone(d.config.Addrs)
	for _, r := range ranges {
		parts, err := r.Array()
		if err != nil || len(parts) < 3 {
			continue
		}
		for _, n := range parts[2:] {
			node, err := n.Array()
			if err != nil || len(node) < 2 {
				continue
			}
			ip, _ := node[0].Text() // null: the node that was asked
			if ip == "" || ip == "?" {
				ip = host
			}
			if port, err := node[1].Int(); err == nil {
				all = append(all, net.JoinHostPort(ip, fmt.Sprint(port)))
			}
		}
	}
	d.setNodes(all)
	return nil
}

// setNodes keeps the turns: nodes that were known stay where they are.
func (d *dialer) setNodes(all []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes = slices.DeleteFunc(d.nodes, func(n string) bool { return !slices.Contains(all, n) })
	for _, n := range all {
		if !slices.Contains(d.nodes, n) {
			d.nodes = append([]string{n}, d.nodes...)
		}
	}
}

// A watch sees to it that a wire leads to the right server still. An old master serves on for ten seconds after a failover,
// and who stays with it until then talks to nobody else. Owned by one goroutine.
type masterCheck struct {
	dialer   *dialer
	sentinel *conn     // kept between questions; nil if there is none
	retryAt  time.Time // Sentinels are not asked before that: none has answered
}

// sentinelPatience is how long the Sentinels may take, all together, to say whether the master is still the same one. Whoever
// asks has better things to do: joins, and messages to publish, wait for it.
const sentinelTimeout = time.Second

// check asks c's server who it is, and a Sentinel for the master. sure says that a Sentinel that would know has named c's
// server; without Sentinels, that the server itself calls itself the master.
func (m *masterCheck) check(ctx context.Context, c *conn) (sure bool, err error) {
	if err := c.hello(ctx); err != nil {
		return false, fmt.Errorf("no sign of life from %s: %w", c.addr, lostConnection(err))
	}
	if err := c.usable(); err != nil {
		return false, fmt.Errorf("%s: %w", c.addr, err)
	}
	if m.dialer.config.Sentinel.MasterSet == "" {
		return true, nil
	}
	other, sure := m.otherMaster(ctx, c.addr)
	if other {
		return false, fmt.Errorf("%s: %w", c.addr, errOtherMaster)
	}
	return sure, nil
}

// other reports whether a Sentinel knows another master than addr, and whether its word counts: one that is cut off from
// the other Sentinels learns of no failover. When none answers all stays as it is.
func (m *masterCheck) otherMaster(ctx context.Context, addr string) (other, sure bool) {
	if time.Now().Before(m.retryAt) {
		return false, false
	}
	ctx, cancel := context.WithTimeout(ctx, sentinelTimeout)
	defer cancel()
	for _, sentinel := range m.dialer.sentinelOrder() {
		if m.sentinel != nil {
			sentinel = m.sentinel.addr
		}
		master, err := m.askMaster(ctx, sentinel)
		if err == nil && master != addr {
			return true, true
		}
		if err == nil {
			return false, m.hasQuorum(ctx)
		}
		m.close()
		m.dialer.demote(sentinel)
		if ctx.Err() != nil { // the others are next time's
			break
		}
	}
	m.retryAt = time.Now().Add(m.dialer.config.ProbeInterval)
	return false, false
}

// quorum reports whether the Sentinel that has just answered sees enough others to agree on a failover. One that may not be
// asked that counts as one that does.
func (m *masterCheck) hasQuorum(ctx context.Context) bool {
	_, err := m.sentinel.Do(ctx, "SENTINEL", "CKQUORUM", m.dialer.config.Sentinel.MasterSet)
	if err == nil {
		return true
	}
	var rejected resp.Error
	if !errors.As(err, &rejected) {
		m.close()
		return false
	}
	return !strings.HasPrefix(string(rejected), "NOQUORUM")
}

// ask is the address of the master, by a Sentinel.
func (m *masterCheck) askMaster(ctx context.Context, sentinel string) (string, error) {
	if m.sentinel == nil {
		var err error
		if m.sentinel, err = m.dialer.connectSentinel(ctx, sentinel); err != nil {
			return "", err
		}
	}
	return m.dialer.queryMaster(ctx, m.sentinel)
}

func (m *masterCheck) close() {
	if m.sentinel != nil {
		m.sentinel.Close()
		m.sentinel = nil
	}
}

// join makes one error of several, on one line.
func joinErrors(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return &joinedError{errs}
}

type joinedError struct{ errs []error }

func (s *joinedError) Error() string {
	var texts []string
	for _, err := range s.errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (s *joinedError) Unwrap() []error { return s.errs }
