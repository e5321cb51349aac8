package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hearthws/hearth/bench/internal/process"
)

// compileC builds one of the C programs. It skips the test if there is no compiler.
func compileC(t *testing.T, source string) string {
	t.Helper()
	if err := missing(compiler); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	binary := filepath.Join(t.TempDir(), strings.TrimSuffix(source, ".c"))
	args := append([]string{"-Werror", "-o", binary, filepath.Join("c", source)}, cFlags...)
	if out, err := exec.CommandContext(t.Context(), compiler.name, args...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", source, err, out)
	}
	return binary
}

func drive(t *testing.T, loader string, port, pid int, args ...string) (reading, error) {
	t.Helper()
	args = append([]string{"-port", strconv.Itoa(port), "-pid", strconv.Itoa(pid), "-settle", "0.05", "-verify", "1"}, args...)
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), loader, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return reading{}, errors.New(stderr.String())
	}
	return parseReading(out)
}

// TestLoadAgainstLimit runs the load generator against the limit server in every mode.
func TestLoadAgainstLimit(t *testing.T) {
	t.Parallel()
	loader, limit := compileC(t, "load.c"), compileC(t, "limit.c")
	for name, tc := range map[string]struct {
		args []string
		want int64
	}{
		"paced":      {[]string{"-mode", "fan", "-clients", "7", "-messages", "20", "-rate", "200"}, 140},
		"single":     {[]string{"-mode", "fan", "-clients", "20", "-messages", "50", "-rate", "0", "-batch", "1"}, 1000},
		"burst":      {[]string{"-mode", "fan", "-clients", "20", "-messages", "1000", "-rate", "0", "-batch", "64"}, 20000},
		"big":        {[]string{"-mode", "fan", "-clients", "3", "-messages", "200", "-rate", "0", "-batch", "8", "-size", "30000"}, 600},
		"one client": {[]string{"-mode", "fan", "-clients", "1", "-messages", "1", "-rate", "0"}, 1},
		"empty":      {[]string{"-mode", "fan", "-clients", "2", "-messages", "3", "-rate", "0", "-size", "0"}, 6},
		"echo":       {[]string{"-mode", "echo", "-clients", "10", "-seconds", "0.1"}, -1},
		"sealed":     {[]string{"-mode", "fan", "-clients", "5", "-sealed", "5", "-key", "k", "-messages", "100", "-rate", "0", "-batch", "8"}, 500},
		"idle":       {[]string{"-mode", "idle", "-clients", "50"}, 0},
		"connect":    {[]string{"-mode", "connect", "-clients", "300"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			argv := []string{limit, "0"}
			if name == "sealed" {
				argv = append(argv, "sealed")
			}
			p, err := process.Start(t.Context(), process.Command{Args: argv, Ready: serverReady})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := p.Stop(); err != nil {
					t.Error(err)
				}
			}()
			port, err := strconv.Atoi(strings.TrimPrefix(p.Ready, "127.0.0.1:"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := drive(t, loader, port, p.PID(), tc.args...)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.problem(); err != nil {
				t.Errorf("problem: %v", err)
			}
			if tc.want >= 0 && r.Got != tc.want {
				t.Errorf("%d messages, want %d", r.Got, tc.want)
			}
		})
	}
}

// TestLoadNoticesFaults checks that the load generator reports a broken server.
func TestLoadNoticesFaults(t *testing.T) {
	t.Parallel()
	loader := compileC(t, "load.c")
	for name, tc := range map[string]struct {
		fault fault
		want  string // in the problem, or in the error of the load generator; empty: none
	}{
		"none":                 {fault{}, ""},
		"in small pieces":      {fault{pieces: true}, ""},
		"ping":                 {fault{before: []byte{0x89, 2, 'h', 'i'}}, ""},
		"lost":                 {fault{skip: true}, "1 of 30 messages lost"},
		"twice":                {fault{twice: true}, "extra messages"},
		"too short":            {fault{payload: func(p string) string { return p[:len(p)-1] }}, "1 wrong messages"},
		"other text":           {fault{payload: func(p string) string { return strings.Replace(p, "x", "y", 1) }}, "1 wrong messages"},
		"binary":               {fault{first: 0x82}, "1 wrong messages"},
		"a fragment":           {fault{first: 0x01}, "1 wrong messages"},
		"close frame":          {fault{before: []byte{0x88, 2, 0x03, 0xe9}}, "1 connections closed"},
		"hangs up":             {fault{hangUp: true}, "1 connections closed"},
		"upgrade rejected":     {fault{status: "HTTP/1.1 503 Service Unavailable"}, "the upgrade was rejected: HTTP/1.1 503"},
		"gone on authenticate": {fault{noAuthenticate: true}, "hung up on client"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startFaulty(t, tc.fault)
			r, err := drive(t, loader, s.port(), os.Getpid(), "-mode", "fan", "-clients", "3", "-messages", "10", "-rate", "0", "-seconds", "20")
			if err == nil {
				err = r.problem()
			}
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("a problem: %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

// TestLoadNoticesPlaintext checks that any unencrypted message to an encrypted client counts as
// wrong.
func TestLoadNoticesPlaintext(t *testing.T) {
	t.Parallel()
	loader := compileC(t, "load.c")
	for name, payload := range map[string]func(string) string{
		"as it was":   func(p string) string { return p },
		"same length": func(string) string { return `{"event":"m","data":{"p":"` + strings.Repeat("x", 229) + `"}}` },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startFaulty(t, fault{payload: payload, always: true})
			r, err := drive(t, loader, s.port(), os.Getpid(), "-mode", "fan", "-clients", "1", "-sealed", "1", "-key", "k", "-messages", "10", "-rate", "0")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.problem(); err == nil || !strings.Contains(err.Error(), "10 wrong messages") {
				t.Errorf("got %v, want 10 wrong messages", err)
			}
		})
	}
}

// A fault is one error of a server, in the fifth message to the client that ordered the messages.
type fault struct {
	order               int // the number of the order that it affects, from 1 on; 0: all
	skip, twice, hangUp bool
	payload             func(string) string
	first               byte   // of the frame, in place of 0x81
	before              []byte // sent before the frame
	pieces              bool   // each byte is written separately
	status              string // of the upgrade, for all clients
	noAuthenticate      bool
	always              bool // in every message
	stays               bool // clients stay in rooms that they leave
	strict              bool // closes clients without a heartbeat between two orders
}

// faulty is a slow and simple server for the messages of the benchmark.
type faulty struct {
	listener net.Listener
	fault    fault
	wait     sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	orders  int
	alive   map[net.Conn]bool // clients with a heartbeat since their last order
	clients []net.Conn
	rooms   map[string][]net.Conn // by room, and by client id
}

func startFaulty(t *testing.T, f fault) *faulty {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &faulty{listener: ln, fault: f, rooms: map[string][]net.Conn{}, alive: map[net.Conn]bool{}}
	s.wait.Go(func() { // ends when the listener is closed; the cleanup waits
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.wait.Go(func() { s.serve(nc) }) // ends when the load generator hangs up
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.wait.Wait()
	})
	return s
}

func (s *faulty) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *faulty) serve(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			return
		}
	}
	status := s.fault.status
	if status == "" {
		status = "HTTP/1.1 101 Switching Protocols"
	}
	s.write(nc, []byte(status+"\r\nUpgrade: websocket\r\n\r\n"))
	for {
		text, err := readMasked(r)
		if err != nil || !s.answer(nc, text) {
			return
		}
	}
}

// answer handles a message, and reports whether to continue.
func (s *faulty) answer(nc net.Conn, text string) bool {
	switch {
	case strings.Contains(text, `"authenticate"`):
		if s.fault.noAuthenticate {
			return false
		}
		s.mu.Lock()
		id := fmt.Sprintf("00000000-0000-0000-0000-%012d", len(s.clients))
		s.clients = append(s.clients, nc)
		s.rooms[id] = []net.Conn{nc}
		s.mu.Unlock()
		s.write(nc, unmasked(0x81, fmt.Sprintf(`{"event":"connected","data":{"id":%q}}`, id)))
	case strings.HasPrefix(text, `{"event":"heartbeat"`):
		s.mu.Lock()
		s.alive[nc] = true
		s.mu.Unlock()
	case strings.HasPrefix(text, `{"event":"e"`):
		s.write(nc, unmasked(0x81, text))
	case strings.HasPrefix(text, `{"event":"join"`):
		s.setRooms(text, []net.Conn{nc})
	case strings.HasPrefix(text, `{"event":"leave"`) && !s.fault.stays:
		s.setRooms(text, nil)
	case strings.Contains(text, `"pub"`):
		var order struct{ Data struct{ N, Size int } }
		if json.Unmarshal([]byte(text), &order) != nil {
			return false
		}
		return s.publish(nc, order.Data.N, `{"event":"m","data":{"p":"`+strings.Repeat("x", order.Data.Size)+`"}}`)
	}
	return true
}

// setRooms updates the members for a `join` or `leave`.
func (s *faulty) setRooms(text string, members []net.Conn) {
	var m struct{ Data struct{ Rooms []string } }
	if json.Unmarshal([]byte(text), &m) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, room := range m.Data.Rooms {
		s.rooms[room] = members
	}
}

func (s *faulty) publish(publisher net.Conn, n int, payload string) bool {
	s.mu.Lock()
	clients := append([]net.Conn(nil), s.clients...)
	s.orders++
	wrong := s.fault.order == 0 || s.fault.order == s.orders
	alive := s.alive[publisher]
	s.alive[publisher] = false
	s.mu.Unlock()
	if s.fault.strict && !alive {
		return false
	}
	for i := range n {
		for _, c := range clients {
			if !s.fault.always && (!wrong || i != 4 || c != publisher) {
				s.write(c, unmasked(0x81, payload))
				continue
			}
			if s.fault.hangUp {
				return false
			}
			s.sendFaulty(c, payload)
		}
	}
	return true
}

// sayUnasked sends an unexpected message to all clients.
func (s *faulty) sayUnasked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		s.write(c, unmasked(0x81, `{"event":"m","data":{"p":"x"}}`))
	}
}

// hangUp closes all connections.
func (s *faulty) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		_ = c.Close()
	}
}

func (s *faulty) sendFaulty(c net.Conn, payload string) {
	first := byte(0x81)
	if s.fault.first != 0 {
		first = s.fault.first
	}
	if s.fault.payload != nil {
		payload = s.fault.payload(payload)
	}
	s.write(c, s.fault.before)
	if s.fault.skip {
		return
	}
	s.write(c, unmasked(first, payload))
	if s.fault.twice {
		s.write(c, unmasked(first, payload))
	}
}

// write ignores errors: the load generator closes the connection when it has found a fault.
func (s *faulty) write(c net.Conn, b []byte) {
	if !s.fault.pieces {
		_, _ = c.Write(b)
		return
	}
	for i := range b {
		_, _ = c.Write(b[i : i+1])
	}
}

func unmasked(first byte, payload string) []byte {
	frame := []byte{first, byte(len(payload))}
	if len(payload) > 125 {
		frame = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(len(payload)))
	}
	return append(frame, payload...)
}

// readMasked reads a client's frame of less than 64 KiB.
func readMasked(r io.Reader) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	size := int(head[1] & 0x7f)
	if size == 126 {
		var long [2]byte
		if _, err := io.ReadFull(r, long[:]); err != nil {
			return "", err
		}
		size = int(binary.BigEndian.Uint16(long[:]))
	}
	rest := make([]byte, 4+size)
	if _, err := io.ReadFull(r, rest); err != nil {
		return "", err
	}
	for i := range size {
		rest[4+i] ^= rest[i&3]
	}
	return string(rest[4:]), nil
}
