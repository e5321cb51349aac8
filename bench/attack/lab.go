package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hearthws/hearth/bench/internal/process"
	"github.com/hearthws/hearth/bench/internal/redis"
	"github.com/hearthws/hearth/internal/resp"
)

// A lab starts what one round of an attack needs, and stops it. It is for one goroutine.
type lab struct {
	binary  string
	options []string // further options of hearth serve

	stops []func()
}

// close stops what was started, in reverse order.
func (l *lab) close() {
	for len(l.stops) > 0 {
		last := len(l.stops) - 1
		l.stops[last]()
		l.stops = l.stops[:last]
	}
}

// memoryBound is the memory at which a server is killed: an attack must not use up the machine.
const memoryBound = 3 << 30

// A server is a running `hearth serve`.
type server struct {
	*process.Process
	addr string
	log  *logCounter
}

// serve starts a server on a free port of 127.0.0.1.
func (l *lab) serve(ctx context.Context, options ...string) (*server, error) {
	s := &server{log: newLogCounter()}
	args := append([]string{l.binary, "serve", "--listen", "127.0.0.1:0", "--log-format", "json"}, options...)
	var err error
	s.Process, err = process.Start(ctx, process.Command{
		Args: append(args, l.options...), Env: withoutHearth(os.Environ()), Ready: serving, Stderr: s.log,
	})
	if err != nil {
		return nil, err
	}
	s.addr = s.Ready
	ended := make(chan struct{})
	go s.guard(ended) // ends with the server; the function below waits for it
	l.stops = append(l.stops, func() { s.Kill(); <-ended })
	return s, nil
}

// withoutHearth removes the variables that configure servers.
func withoutHearth(environ []string) []string {
	kept := []string{}
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "HEARTH_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// serving finds the address in the line that hearth serve prints when it listens.
func serving(line string) (string, bool) {
	var entry struct{ URL string }
	if json.Unmarshal([]byte(line), &entry) != nil || entry.URL == "" {
		return "", false
	}
	u, err := url.Parse(entry.URL)
	if err != nil {
		return "", false
	}
	return net.JoinHostPort("127.0.0.1", u.Port()), true
}

// guard kills the server if it uses too much memory.
func (s *server) guard(ended chan<- struct{}) {
	defer close(ended)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.Exited():
			return
		case <-tick.C:
			if s.status("VmRSS") > memoryBound {
				s.Kill()
			}
		}
	}
}

// peak returns the largest resident memory of the server so far, in MiB.
func (s *server) peak() float64 {
	if !s.Alive() {
		return memoryBound >> 20 // the guard has killed it
	}
	return float64(s.status("VmHWM")) / (1 << 20)
}

// status returns a size from /proc in bytes, or 0 if the process has ended.
func (s *server) status(key string) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			kb, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			return kb << 10
		}
	}
	return 0
}

// sockets returns the server's ends of its TCP connections.
func (s *server) sockets() ([]socket, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	local, err := netip.ParseAddrPort(s.addr)
	if err != nil {
		return nil, err
	}
	var held []socket
	for _, k := range parseSockets(table) {
		if k.local.Port() == local.Port() && k.owned && k.remote.Port() != 0 {
			held = append(held, k)
		}
	}
	return held, nil
}

// heldBy returns the number of sockets that the server holds for clients of an address.
func (s *server) heldBy(address string) (int, error) {
	sockets, err := s.sockets()
	n := 0
	for _, k := range sockets {
		if k.remote.Addr().String() == address {
			n++
		}
	}
	return n, err
}

// unread returns the number of bytes that have arrived for the server and that it has not read.
func (s *server) unread() (int, error) {
	sockets, err := s.sockets()
	n := 0
	for _, k := range sockets {
		n += k.unread
	}
	return n, err
}

// A socket is one line of /proc/net/tcp.
type socket struct {
	local, remote netip.AddrPort
	unread        int
	owned         bool // a process has a descriptor of it
}

// parseSockets parses /proc/net/tcp. It skips lines that it cannot parse.
func parseSockets(table []byte) []socket {
	var all []socket
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		local, ok1 := parseEndpoint(fields[1])
		remote, ok2 := parseEndpoint(fields[2])
		_, receive, ok3 := strings.Cut(fields[4], ":")
		unread, err := strconv.ParseInt(receive, 16, 64)
		if ok1 && ok2 && ok3 && err == nil {
			all = append(all, socket{local, remote, int(unread), fields[9] != "0"})
		}
	}
	return all
}

// parseEndpoint parses an address and a port in the form of the kernel on a little-endian machine:
// 0100007F:1F90.
func parseEndpoint(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	h, err1 := strconv.ParseUint(host, 16, 32)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err1 != nil || err2 != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(h), byte(h >> 8), byte(h >> 16), byte(h >> 24)}), uint16(p)), true
}

// A logCounter counts the lines of a log by their messages. It is safe for concurrent use.
type logCounter struct {
	mu      sync.Mutex // guards the fields below
	partial []byte
	total   int
	counts  map[string]int
	kept    [][]byte // the first lines of each message
}

func newLogCounter() *logCounter { return &logCounter{counts: map[string]int{}} }

// Write counts the lines in b.
func (l *logCounter) Write(b []byte) (int, error) {
	const mostMessages, mostKept = 100, 100
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := b; ; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		l.partial = append(l.partial, line...)
		if !whole {
			return len(b), nil
		}
		l.total++
		message := findMessage(l.partial)
		if _, known := l.counts[message]; known || len(l.counts) < mostMessages {
			l.counts[message]++
			if l.counts[message] <= mostKept {
				l.kept = append(l.kept, bytes.Clone(l.partial))
			}
		}
		l.partial, rest = l.partial[:0], after
	}
}

// findMessage finds the message of a line without parsing the whole line, since there may be a
// hundred thousand per second.
func findMessage(line []byte) string {
	_, rest, _ := bytes.Cut(line, []byte(`"msg":"`))
	message, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(message)
}

// lines returns the number of lines so far.
func (l *logCounter) lines() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// linesWith returns the number of lines with a phrase in their message.
func (l *logCounter) linesWith(phrase string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for message, n := range l.counts {
		if strings.Contains(message, phrase) {
			total += n
		}
	}
	return total
}

// most returns the most frequent message, and its number of lines.
func (l *logCounter) most() (message string, lines int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for m, n := range l.counts {
		if n > lines || n == lines && m < message {
			message, lines = m, n
		}
	}
	return message, lines
}

// sum adds up the numbers of one of the keys in lines whose message has one of the phrases.
func (l *logCounter) sum(phrases, keys []string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for _, line := range l.kept {
		var entry map[string]any
		if json.Unmarshal(line, &entry) != nil {
			continue
		}
		message, _ := entry["msg"].(string)
		if !slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(message, p) }) {
			continue
		}
		for _, key := range keys {
			if n, ok := entry[key].(float64); ok {
				total += int(n)
				break
			}
		}
	}
	return total
}

// redis starts a redis-server.
func (l *lab) redis(ctx context.Context, lines []string, args ...string) (*redis.Server, error) {
	r, err := redis.Start(ctx, lines, args...)
	if err != nil {
		return nil, fmt.Errorf("start redis: %w", err)
	}
	l.stops = append(l.stops, r.Stop)
	return r, nil
}

// nodes starts servers on one Redis, and returns when they know each other.
func (l *lab) nodes(ctx context.Context, n int, url string, options ...string) ([]*server, error) {
	var all []*server
	for range n {
		s, err := l.serve(ctx, append([]string{"--redis", url}, options...)...)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	for _, s := range all {
		if err := s.awaitNodes(ctx, n); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// awaitNodes waits until a server knows n servers, including itself.
func (s *server) awaitNodes(ctx context.Context, n int) error {
	c, err := connect(ctx, honest, s.addr)
	if err != nil {
		return err
	}
	defer c.close()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err := c.send(`{"event":"rooms"}`); err != nil {
			return err
		}
		e, err := c.await("rooms")
		if err != nil {
			return err
		}
		var data struct{ Servers int }
		if json.Unmarshal(e.Data, &data) == nil && data.Servers >= n {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("a server does not know %d servers", n)
}

// emit sends one event with hearth emit.
func (l *lab) emit(ctx context.Context, url string, args ...string) error {
	_, err := process.Output(ctx, "", l.binary, append([]string{"emit", "--redis", url}, args...)...)
	return err
}

// command runs one Redis command, on a connection of its own.
func command(ctx context.Context, addr string, args ...string) (resp.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return resp.Value{}, err
	}
	c, err := resp.Connect(ctx, socket, resp.Options{})
	if err != nil {
		return resp.Value{}, err
	}
	defer c.Close()
	return c.Do(ctx, args...)
}

// freeze stops a process for a time.
func freeze(ctx context.Context, p *process.Process, length time.Duration) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(sleep(ctx, length), p.Signal(syscall.SIGCONT))
}

// hasRedis reports whether redis-server is installed.
func hasRedis() bool {
	_, err := exec.LookPath("redis-server")
	return err == nil
}
