package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/hearthws/hearth/bench/internal/redis"
)

// startRedisOrSkip starts a Redis for a test.
func startRedisOrSkip(t *testing.T) *redis.Server {
	t.Helper()
	if _, err := exec.LookPath(redisTool.name); err != nil {
		t.Skipf("SKIPPED: %v", missing(redisTool))
	}
	r, err := redis.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

// TestLoadNoticesFaultsBehindRedis checks that the load generator notices faults of a server with
// messages from Redis.
func TestLoadNoticesFaultsBehindRedis(t *testing.T) {
	t.Parallel()
	loader := compileC(t, "load.c")
	held := []string{"-mode", "held", "-clients", "1", "-messages", "200", "-batch", "50"}
	elsewhere := []string{"-mode", "elsewhere", "-clients", "2", "-messages", "20000"}
	rate := []string{"-mode", "rate", "-clients", "4", "-rate", "1000", "-seconds", "0.1"}
	rooms := []string{"-mode", "rooms", "-clients", "2", "-rooms", "120"}
	for name, tc := range map[string]struct {
		args  []string
		relay func(number int) int // the number of times that a message is delivered
		fault fault
		want  string // as in TestLoadNoticesFaults
	}{
		"held":              {held, once, fault{}, ""},
		"held, lost":        {held, exceptFor(0, 5), fault{}, "messages lost"},
		"held, twice":       {held, exceptFor(2, 5), fault{}, "wrong messages"},
		"elsewhere":         {elsewhere, once, fault{}, ""},
		"elsewhere, lost":   {elsewhere, exceptFor(0, 1), fault{}, "1 of 3 messages lost"},
		"elsewhere, twice":  {elsewhere, exceptFor(2, 2), fault{}, "extra messages"},
		"rate":              {rate, once, fault{}, ""},
		"rate, twice":       {rate, exceptFor(2, 5), fault{}, "wrong messages"},
		"rate, none at all": {rate, func(int) int { return 0 }, fault{}, "latency was not bounded at any rate"},
		"rooms":             {rooms, once, fault{}, ""},
		"rooms, not left":   {rooms, once, fault{stays: true}, "120 wrong messages"},
		"rooms, lost":       {rooms, exceptFor(0, 7), fault{}, "1 of 120 messages lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startRedisOrSkip(t) // its own Redis, since everything on it is relayed
			s := startFaulty(t, tc.fault)
			s.relayFrom(t, server, tc.relay)
			port := strconv.Itoa(s.port())
			args := append([]string{"-redis-port", strconv.Itoa(server.Port), "-redis-pid", strconv.Itoa(server.Process.PID())}, tc.args...)
			if tc.args[1] == "rate" {
				args = append(args, "-port2", port, "-pid2", strconv.Itoa(os.Getpid()))
			}
			r, err := drive(t, loader, s.port(), os.Getpid(), args...)
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

func once(int) int { return 1 }

func exceptFor(times, number int) func(int) int {
	return func(n int) int {
		if n == number {
			return times
		}
		return 1
	}
}

// relayFrom delivers the messages that are published in Redis, as often as relay returns for each
// number.
func (s *faulty) relayFrom(t *testing.T, server *redis.Server, relay func(number int) int) {
	t.Helper()
	nc, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(nc, "PSUBSCRIBE ws:*\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(nc)
	if _, err := readReply(r); err != nil { // the answer to SUBSCRIBE
		t.Fatal(err)
	}
	s.wait.Go(func() { // ends when the cleanup closes the connection
		for {
			reply, err := readReply(r)
			if err != nil {
				return
			}
			s.relay(reply[3], relay)
		}
	})
	t.Cleanup(func() { _ = nc.Close() }) // before the cleanup of startFaulty, which waits
}

// readReply reads an array of strings and numbers.
func readReply(r *bufio.Reader) ([]string, error) {
	var items []string
	for left := 1; left > 0; left-- {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
		if err != nil {
			return nil, err
		}
		switch line[0] {
		case '*':
			left += n
		case ':':
			items = append(items, strconv.Itoa(n))
		default: // a string of n bytes
			text := make([]byte, n+len("\r\n"))
			if _, err := io.ReadFull(r, text); err != nil {
				return nil, err
			}
			items = append(items, string(text[:n]))
		}
	}
	return items, nil
}

func (s *faulty) relay(message string, relay func(number int) int) {
	var m struct {
		Type, Target string
		Data         struct{ P string }
	}
	if json.Unmarshal([]byte(message), &m) != nil {
		return
	}
	number, err := strconv.Atoi(m.Data.P)
	if err != nil {
		return
	}
	frame := unmasked(0x81, fmt.Sprintf(`{"event":"m","data":{"p":"%s"}}`, m.Data.P))
	s.mu.Lock()
	receivers := s.rooms[m.Target]
	if m.Target == "ws-default" {
		receivers = s.clients
	}
	s.mu.Unlock()
	for range relay(number) {
		for _, c := range receivers {
			s.write(c, frame)
		}
	}
}
