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
	errOldRedis   = errors.New("it does not speak RESP3: Redis 6 or later is needed")
	errReplica    = errors.New("it is a replica: what is published there reaches nobody else")
	errNoCluster  = errors.New("it is not a node of a Cluster")
	errNoMaster   = errors.New("it knows no master of that name")
	errSentinel   = errors.New("it is a Sentinel")
	errOther      = errors.New("the Sentinels name another master")
	errConnection = errors.New("the connection was closed")
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
	var w *conn
	var err error
	switch {
	case d.config.Sentinel.MasterSet != "":
		w, err = d.bySentinel(ctx, accept)
	case d.config.Cluster:
		w, err = d.inCluster(ctx, accept)
	default:
		w, err = d.toMaster(ctx, d.config.Addrs[0], accept)
	}
	if err != nil {
		return nil, d.explain(err)
	}
	return w, nil
}

func (d *dialer) login() login {
	return login{username: d.config.Username, password: d.config.Password, db: d.config.DB}
}

// toMaster connects to addr, which must not be a replica.
func (d *dialer) toMaster(ctx context.Context, addr string, accept resp.Options) (*conn, error) {
	w, err := d.connect(ctx, addr, d.login(), accept)
	if err == nil {
		if err = w.usable(); err != nil {
			w.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	return w, nil
}

// bySentinel asks one Sentinel after the other for the master, until one knows one that answers as such.
func (d *dialer) bySentinel(ctx context.Context, accept resp.Options) (*conn, error) {
	var failed []error
	for _, sentinel := range d.bestSentinels() {
		addr, err := d.askSentinel(ctx, sentinel)
		if err == nil {
			var w *conn
			if w, err = d.toMaster(ctx, addr, accept); err == nil {
				return w, nil
			}
		} else {
			d.demote(sentinel)
		}
		failed = append(failed, fmt.Errorf("by Sentinel %s: %w", sentinel, err))
	}
	return nil, join(failed)
}

// bestSentinels are all, those that answered last before those that did not.
func (d *dialer) bestSentinels() []string {
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

func (d *dialer) askSentinel(ctx context.Context, sentinel string) (string, error) {
	w, err := d.toSentinel(ctx, sentinel)
	if err != nil {
		return "", err
	}
	defer w.Close()
	return d.masterBy(ctx, w)
}

func (d *dialer) toSentinel(ctx context.Context, sentinel string) (*conn, error) {
	s := d.config.Sentinel
	return d.connect(ctx, sentinel, login{username: s.Username, password: s.Password}, resp.Options{})
}

// masterBy is the address of the master, by w's Sentinel.
func (d *dialer) masterBy(ctx context.Context, w *conn) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	name := d.config.Sentinel.MasterSet
	reply, err := w.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
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
func (d *dialer) inCluster(ctx context.Context, accept resp.Options) (*conn, error) {
	var failed []error
	for range d.countNodes() {
		addr := d.nextNode()
		w, err := d.connect(ctx, addr, d.login(), accept)
		if err == nil {
			if err = d.learnNodes(ctx, w); err == nil {
				return w, nil
			}
			w.Close()
		}
		failed = append(failed, fmt.Errorf("%s: %w", addr, err))
	}
	return nil, join(failed)
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

// learnNodes asks w's server for the other nodes.
func (d *dialer) learnNodes(ctx context.Context, w *conn) error {
	if w.role != "cluster" {
		return errNoCluster
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	reply, err := w.Do(ctx, "CLUSTER", "SLOTS")
	if err != nil {
		return fmt.Errorf("ask for the nodes: %w", err)
	}
	ranges, err := reply.Array()
	if err != nil {
		return fmt.Errorf("ask for the nodes: %w", err)
	}
	host, _, _ := net.SplitHostPort(w.addr)
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
type watch struct {
	dialer   *dialer
	sentinel *conn     // kept between questions; nil if there is none
	again    time.Time // Sentinels are not asked before that: none has answered
}

// sentinelPatience is how long the Sentinels may take, all together, to say whether the master is still the same one. Whoever
// asks has better things to do: joins, and messages to publish, wait for it.
const sentinelPatience = time.Second

// check asks w's server who it is, and a Sentinel for the master. sure says that a Sentinel that would know has named w's
// server; without Sentinels, that the server itself calls itself the master.
func (v *watch) check(ctx context.Context, w *conn) (sure bool, err error) {
	if err := w.hello(ctx); err != nil {
		return false, fmt.Errorf("no sign of life from %s: %w", w.addr, lostConnection(err))
	}
	if err := w.usable(); err != nil {
		return false, fmt.Errorf("%s: %w", w.addr, err)
	}
	if v.dialer.config.Sentinel.MasterSet == "" {
		return true, nil
	}
	other, sure := v.other(ctx, w.addr)
	if other {
		return false, fmt.Errorf("%s: %w", w.addr, errOther)
	}
	return sure, nil
}

// other reports whether a Sentinel knows another master than addr, and whether its word counts: one that is cut off from
// the other Sentinels learns of no failover. When none answers all stays as it is.
func (v *watch) other(ctx context.Context, addr string) (other, sure bool) {
	if time.Now().Before(v.again) {
		return false, false
	}
	ctx, cancel := context.WithTimeout(ctx, sentinelPatience)
	defer cancel()
	for _, sentinel := range v.dialer.bestSentinels() {
		if v.sentinel != nil {
			sentinel = v.sentinel.addr
		}
		master, err := v.ask(ctx, sentinel)
		if err == nil && master != addr {
			return true, true
		}
		if err == nil {
			return false, v.quorum(ctx)
		}
		v.close()
		v.dialer.demote(sentinel)
		if ctx.Err() != nil { // the others are next time's
			break
		}
	}
	v.again = time.Now().Add(v.dialer.config.ProbeInterval)
	return false, false
}

// quorum reports whether the Sentinel that has just answered sees enough others to agree on a failover. One that may not be
// asked that counts as one that does.
func (v *watch) quorum(ctx context.Context) bool {
	_, err := v.sentinel.Do(ctx, "SENTINEL", "CKQUORUM", v.dialer.config.Sentinel.MasterSet)
	if err == nil {
		return true
	}
	var rejected resp.Error
	if !errors.As(err, &rejected) {
		v.close()
		return false
	}
	return !strings.HasPrefix(string(rejected), "NOQUORUM")
}

// ask is the address of the master, by a Sentinel.
func (v *watch) ask(ctx context.Context, sentinel string) (string, error) {
	if v.sentinel == nil {
		var err error
		if v.sentinel, err = v.dialer.toSentinel(ctx, sentinel); err != nil {
			return "", err
		}
	}
	return v.dialer.masterBy(ctx, v.sentinel)
}

func (v *watch) close() {
	if v.sentinel != nil {
		v.sentinel.Close()
		v.sentinel = nil
	}
}

// join makes one error of several, on one line.
func join(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return &several{errs}
}

type several struct{ errs []error }

func (s *several) Error() string {
	var texts []string
	for _, err := range s.errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (s *several) Unwrap() []error { return s.errs }
