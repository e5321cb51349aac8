package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

type tlsConfig = tls.Config

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
func (d *dialer) open(ctx context.Context, h *hooks) (*wire, error) {
	var w *wire
	var err error
	switch {
	case d.config.Sentinel.MasterSet != "":
		w, err = d.bySentinel(ctx, h)
	case d.config.Cluster:
		w, err = d.inCluster(ctx, h)
	default:
		w, err = d.toMaster(ctx, d.config.Addrs[0], h)
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
func (d *dialer) toMaster(ctx context.Context, addr string, h *hooks) (*wire, error) {
	w, err := d.connect(ctx, addr, d.login(), h)
	if err == nil {
		if err = w.usable(); err != nil {
			w.close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	return w, nil
}

// usable reports why messages of other nodes would not get to w's server, by what it said last.
func (w *wire) usable() error {
	if w.role == "sentinel" {
		return errSentinel
	}
	if w.role != "master" && w.role != "cluster" && w.role != "" {
		return errReplica
	}
	return nil
}

// bySentinel asks one Sentinel after the other for the master, until one knows one that answers as such.
func (d *dialer) bySentinel(ctx context.Context, h *hooks) (*wire, error) {
	var failed []error
	for _, sentinel := range d.bestSentinels() {
		addr, err := d.askSentinel(ctx, sentinel)
		if err == nil {
			var w *wire
			if w, err = d.toMaster(ctx, addr, h); err == nil {
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
	defer w.close()
	return d.masterBy(ctx, w)
}

func (d *dialer) toSentinel(ctx context.Context, sentinel string) (*wire, error) {
	s := d.config.Sentinel
	return d.connect(ctx, sentinel, login{username: s.Username, password: s.Password}, nil)
}

// masterBy is the address of the master, by w's Sentinel.
func (d *dialer) masterBy(ctx context.Context, w *wire) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	name := d.config.Sentinel.MasterSet
	answer, err := w.do(ctx, w.redis.B().SentinelGetMasterAddrByName().Master(name).Build()).AsStrSlice()
	switch {
	case rueidis.IsRedisNil(err):
		return "", errNoMaster
	case err != nil:
		return "", err
	case len(answer) != 2:
		return "", errNoMaster
	}
	return net.JoinHostPort(answer[0], answer[1]), nil
}

// inCluster connects to the first node that answers, another one each time: Pub/Sub of a Cluster is one, wherever one
// enters it.
func (d *dialer) inCluster(ctx context.Context, h *hooks) (*wire, error) {
	var failed []error
	for range d.countNodes() {
		addr := d.nextNode()
		w, err := d.connect(ctx, addr, d.login(), h)
		if err == nil {
			if err = d.learnNodes(ctx, w); err == nil {
				return w, nil
			}
			w.close()
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
func (d *dialer) learnNodes(ctx context.Context, w *wire) error {
	if w.role != "cluster" {
		return errNoCluster
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	ranges, err := w.do(ctx, w.redis.B().ClusterSlots().Build()).ToArray()
	if err != nil {
		return fmt.Errorf("ask for the nodes: %w", err)
	}
	host, _, _ := net.SplitHostPort(w.addr)
	all := slices.Clone(d.config.Addrs)
	for _, r := range ranges {
		parts, err := r.ToArray()
		if err != nil || len(parts) < 3 {
			continue
		}
		for _, n := range parts[2:] {
			if node, err := n.ToArray(); err == nil && len(node) >= 2 {
				ip, _ := node[0].ToString() // none: the one that we have asked
				if ip == "" || ip == "?" {
					ip = host
				}
				all = append(all, net.JoinHostPort(ip, fmt.Sprint(mustInt(node[1].AsInt64()))))
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
	sentinel *wire     // kept between questions; nil if there is none
	again    time.Time // Sentinels are not asked before that: none has answered
}

// sentinelPatience is how long the Sentinels may take, all together, to say whether the master is still the same one. Whoever
// asks has better things to do: joins, and messages to publish, wait for it.
const sentinelPatience = time.Second

// check asks w's server who it is, and a Sentinel for the master. sure says that a Sentinel that would know has named w's
// server; without Sentinels, that the server itself calls itself the master.
func (v *watch) check(ctx context.Context, w *wire) (sure bool, err error) {
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
	ask := v.sentinel.redis.B().Arbitrary("SENTINEL", "CKQUORUM", v.dialer.config.Sentinel.MasterSet).Build()
	err := v.sentinel.do(ctx, ask).Error()
	if err == nil {
		return true
	}
	var refused *rueidis.RedisError
	if !errors.As(err, &refused) {
		v.close()
		return false
	}
	return !strings.HasPrefix(refused.Error(), "NOQUORUM")
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
		v.sentinel.close()
		v.sentinel = nil
	}
}

// dial makes a connection that notices when the other side is gone, however silently.
func (d *dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         control,
	}
	if strings.HasPrefix(addr, "/") {
		return dialer.DialContext(ctx, "unix", addr)
	}
	if d.config.TLS != nil {
		secure := tls.Dialer{NetDialer: &dialer, Config: d.config.TLS}
		return secure.DialContext(ctx, "tcp", addr)
	}
	return dialer.DialContext(ctx, "tcp", addr)
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
