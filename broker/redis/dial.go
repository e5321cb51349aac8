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

// Reasons why a server cannot be used.
var (
	errOldRedis    = errors.New("it does not speak RESP3: Redis 6 or later is required")
	errReplica     = errors.New("it is a replica: messages published there do not reach other nodes")
	errNoCluster   = errors.New("it is not a node of a Cluster")
	errNoMaster    = errors.New("it knows no master of that name")
	errSentinel    = errors.New("it is a Sentinel")
	errOtherMaster = errors.New("the Sentinels name another master")
	errConnection  = errors.New("the connection was closed")
)

// A dialer finds Redis: it opens connections to the server on which messages reach all nodes.
type dialer struct {
	config  Config // read-only, with defaults
	secrets []string

	mu        sync.Mutex // guards the fields below
	nodes     []string   // of a Cluster: configured and found, the next to try first
	sentinels []string   // in the order in which to ask them
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

// open connects to the master, or to any node of a Cluster. Its errors name the addresses that it
// tried.
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

// connectMaster connects to addr, which must not be a replica.
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

// openBySentinel asks one Sentinel after the other for the master, until one names a server that is
// a master.
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

// sentinelOrder returns the Sentinels, those that answered last before those that did not.
func (d *dialer) sentinelOrder() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sentinels)
}

// demote moves a Sentinel that did not answer behind the others, because waiting for a silent one
// takes long.
func (d *dialer) demote(sentinel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.sentinels, sentinel); i >= 0 {
		d.sentinels = append(slices.Delete(d.sentinels, i, i+1), sentinel)
	}
}

// findMaster returns the address of the master, as the Sentinel knows it.
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

// queryMaster returns the address of the master. c is a connection to a Sentinel.
func (d *dialer) queryMaster(ctx context.Context, c *conn) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	name := d.config.Sentinel.MasterSet
	reply, err := c.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
	if err != nil {
		return "", err
	}
	address, err := reply.Strings() // fails for null: the name is not known
	if err != nil || len(address) != 2 {
		return "", errNoMaster
	}
	return net.JoinHostPort(address[0], address[1]), nil
}

// openInCluster connects to the first node that answers, starting with another one each time.
// Pub/Sub of a Cluster is the same at every node.
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

// openNode connects to a node of a Cluster.
func (d *dialer) openNode(ctx context.Context, addr string, accept resp.Options) (*conn, error) {
	c, err := d.connect(ctx, addr, d.redisLogin(), accept)
	if err != nil {
		return nil, d.explain(fmt.Errorf("%s: %w", addr, err))
	}
	return c, nil
}

func (d *dialer) countNodes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.nodes)
}

// nextNode takes turns, so that the two connections of a broker lead to different nodes and a probe
// passes from one to the other.
func (d *dialer) nextNode() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	addr := d.nodes[0]
	d.nodes = append(d.nodes[1:], addr)
	return addr
}

// learnNodes asks the server for the other nodes.
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

// setNodes replaces the list of nodes. Known nodes keep their place.
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

// A masterCheck checks that a connection still leads to the right server. After a failover the old
// master goes on for about ten seconds, and a node that stays with it until then reaches only
// itself. Owned by one goroutine.
type masterCheck struct {
	dialer   *dialer
	sentinel *conn     // kept between checks; nil if there is none
	retryAt  time.Time // Sentinels are not asked before, because none has answered
}

// sentinelTimeout bounds how long the Sentinels may take, all together, to confirm the master.
// Joins and messages to publish wait for it.
const sentinelTimeout = time.Second

// check asks the server for its role, and a Sentinel for the master. sure reports that a Sentinel
// that would know of a failover has named the server. Without Sentinels, it reports that the server
// calls itself the master.
func (m *masterCheck) check(ctx context.Context, c *conn) (sure bool, err error) {
	if err := c.hello(ctx); err != nil {
		return false, fmt.Errorf("no answer from %s: %w", c.addr, lostConnection(err))
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

// otherMaster reports whether a Sentinel names another master than addr, and whether its knowledge
// counts: a Sentinel that is cut off from the others does not learn of a failover. If none answers,
// both are false.
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
		if ctx.Err() != nil { // the others are asked next time
			break
		}
	}
	m.retryAt = time.Now().Add(m.dialer.config.ProbeInterval)
	return false, false
}

// hasQuorum reports whether the Sentinel that has just answered sees enough others to agree on a
// failover. One that does not permit the question counts as one that does.
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

// askMaster returns the address of the master, as the Sentinel knows it.
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

// joinErrors makes one error of several, on one line.
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
