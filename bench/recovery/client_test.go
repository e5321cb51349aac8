package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A fakeServer accepts WebSockets and follows a script for each of them.
type fakeServer struct {
	t      *testing.T
	ln     net.Listener
	script func(connection int, p *fakePeer)
}

// A fakePeer is the server's side of one connection.
type fakePeer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func newFakeServer(t *testing.T, script func(connection int, p *fakePeer)) *fakeServer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeServer{t: t, ln: ln, script: script}
	done := make(chan struct{})
	go func() { // ends when the listener is closed; the cleanup waits for it
		defer close(done)
		f.serve()
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return f
}

// serve serves one connection at a time.
func (f *fakeServer) serve() {
	for n := 0; ; n++ {
		conn, err := f.ln.Accept()
		if err != nil {
			return
		}
		p := &fakePeer{t: f.t, conn: conn, in: bufio.NewReader(conn)}
		if _, err := http.ReadRequest(p.in); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
			f.script(n, p)
		}
		_ = conn.Close()
	}
}

// says sends text messages.
func (p *fakePeer) says(texts ...string) {
	for _, text := range texts {
		b := []byte{final | opText, byte(len(text))}
		if len(text) > 125 {
			b = binary.BigEndian.AppendUint16([]byte{final | opText, 126}, uint16(len(text)))
		}
		_, _ = p.conn.Write(append(b, text...))
	}
}

// closes sends a close frame.
func (p *fakePeer) closes(code uint16) {
	_, _ = p.conn.Write(binary.BigEndian.AppendUint16([]byte{final | opClose, 2}, code))
}

// hears reads messages until one contains the text. It returns false at the end of the connection.
func (p *fakePeer) hears(part string) bool {
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(p.in, head); err != nil {
			return false
		}
		length := int(head[1] & 0x7F)
		if length == 126 {
			long := make([]byte, 2)
			_, _ = io.ReadFull(p.in, long)
			length = int(binary.BigEndian.Uint16(long))
		}
		payload := make([]byte, 4+length)
		if _, err := io.ReadFull(p.in, payload); err != nil {
			return false
		}
		for i := range length {
			payload[4+i] ^= payload[i%4]
		}
		if strings.Contains(string(payload[4:]), part) {
			return true
		}
	}
}

const (
	welcome = `{"event":"connected","data":{"id":"x"},"hearth":{"version":1,"features":["recovery"],"heartbeat":{"interval":25000,"timeout":10000}}}`
	resumes = `{"event":"connected","data":{"id":"x"},"hearth":{"version":1,"features":["recovery","resume"],"heartbeat":{"interval":25000,` +
		`"timeout":10000},"resumed":{"joined":[{"room":"a","offset":3,"epoch":"e","recovered":1}],"rejected":[]}}}`
)

// joined is the answer to a join of room a.
func joined(rest string) string {
	return `{"event":"join","data":{"joined":[{"room":"a",` + rest + `}],"rejected":[]},"id":"j"}`
}

// message is a message of room a, whose number is its offset.
func message(n int) string {
	return fmt.Sprintf(`{"event":"m","data":{"room":"a","n":%d},"room":"a","offset":%d,"epoch":"e"}`, n, n)
}

// TestClientDetects runs one client against servers that keep or break the protocol, in two
// connections. Three messages were published.
func TestClientDetects(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first, second []string
		want          tally
		violations    int
		absences      int
	}{
		"nothing wrong": {[]string{joined(`"offset":0,"epoch":"e"`), message(1)},
			[]string{joined(`"offset":3,"epoch":"e","recovered":2`), message(2), message(3)}, tally{Expected: 3, Live: 1, Recovered: 2}, 0, 1},
		"a message is lost": {[]string{joined(`"offset":0,"epoch":"e"`), message(1)},
			[]string{joined(`"offset":3,"epoch":"e","recovered":1`), message(3)}, tally{Expected: 3, Live: 1, Recovered: 1, Missed: 1}, 0, 1},
		"a live message is lost": {[]string{joined(`"offset":0,"epoch":"e"`), message(2)},
			[]string{joined(`"offset":2,"epoch":"e"`), message(3)}, tally{Expected: 3, Live: 2, Missed: 1}, 0, 1},
		"a message comes again": {[]string{joined(`"offset":0,"epoch":"e"`), message(1), message(2)},
			[]string{joined(`"offset":3,"epoch":"e","recovered":2`), message(2), message(3)}, tally{Expected: 3, Live: 2, Recovered: 1, Duplicates: 1}, 1, 1},
		"the order is wrong": {[]string{joined(`"offset":0,"epoch":"e"`), message(1)},
			[]string{joined(`"offset":3,"epoch":"e","recovered":2`), message(3), message(2)}, tally{Expected: 3, Live: 1, Recovered: 2, Disordered: 1}, 1, 1},
		"evicted": {[]string{joined(`"offset":0,"epoch":"e"`), message(1)},
			[]string{joined(`"offset":2,"epoch":"e","unrecovered":"evicted"`), message(3)}, tally{Expected: 3, Live: 2, Reported: 1}, 0, 1},
		"another epoch": {[]string{joined(`"offset":0,"epoch":"e"`), message(1)},
			[]string{joined(`"offset":2,"epoch":"f","recovered":0`), message(2), message(3)}, tally{Expected: 3, Live: 3}, 1, 1},
		"interrupted": {[]string{joined(`"offset":0,"epoch":"e"`), message(1), `{"event":"hearth:interrupted","data":{"rooms":["a"],"reason":"gap"}}`,
			joined(`"offset":2,"epoch":"e","recovered":1`), message(2)},
			[]string{joined(`"offset":3,"epoch":"e","recovered":1`), message(3)}, tally{Expected: 3, Live: 1, Recovered: 2}, 0, 1},
		"a room that was not joined": {[]string{joined(`"offset":0,"epoch":"e"`), message(1), message(2), message(3),
			`{"event":"m","data":{"room":"b","n":1}}`}, []string{joined(`"offset":3,"epoch":"e"`)}, tally{Expected: 3, Live: 3}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			served := make(chan struct{})
			f := newFakeServer(t, func(connection int, p *fakePeer) {
				if connection > 1 || !p.hears(`"authenticate"`) {
					return
				}
				p.says(welcome)
				if !p.hears(`"join"`) {
					return
				}
				if connection == 0 {
					p.says(tc.first...)
					p.closes(1012)
					p.hears("nothing")
					return
				}
				p.says(tc.second...)
				p.says(`{"event":"heartbeat"}`)
				close(served)
				p.hears("nothing")
			})
			c := newCrowd(hearthDialect, []string{f.ln.Addr().String()}, 1, []string{"a"}, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := c.during(ctx, func(ctx context.Context) error {
				select {
				case <-served:
				case <-ctx.Done():
					return ctx.Err()
				}
				return c.settle(ctx, tc.want.Live+tc.want.Recovered)
			})
			if err != nil {
				t.Fatal(err)
			}
			r := c.result(3)
			if r.Tally != tc.want || r.Violations != tc.violations || r.Absences != tc.absences {
				t.Errorf("%v, %d violations (%s), %d absences; want %v, %d, %d", r.Tally, r.Violations, r.First, r.Absences, tc.want, tc.violations, tc.absences)
			}
		})
	}
}

// TestClientResumes sends a ticket, which the client uses on the next connection, and once rejects
// it.
func TestClientResumes(t *testing.T) {
	t.Parallel()
	for name, accept := range map[string]bool{"accepted": true, "rejected": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeServer(t, func(connection int, p *fakePeer) {
				if connection == 0 {
					p.hears(`"features":["recovery","resume"]`)
					p.says(welcome, `{"event":"hearth:ticket","data":{"ticket":"old"}}`, `{"event":"hearth:ticket","data":{"ticket":"new"}}`)
					p.hears(`"join"`)
					p.says(joined(`"offset":0,"epoch":"e"`), message(1), message(2))
					p.closes(1012)
					return
				}
				if !p.hears(`"ticket":"new","positions":{"a":{"offset":2,"epoch":"e"}}`) {
					return
				}
				if accept {
					p.says(resumes, message(3))
				} else {
					p.says(`{"event":"error","data":{"message":"Ticket rejected","code":"ticket_rejected"}}`)
					p.hears(`"data":{}`)
					p.says(welcome)
					p.hears(`"join"`)
					p.says(joined(`"offset":3,"epoch":"e","recovered":1`), message(3))
				}
				p.hears("nothing")
			})
			c := newCrowd(hearthDialect, []string{f.ln.Addr().String()}, 1, []string{"a"}, 1)
			c.tickets = true
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := c.during(ctx, func(ctx context.Context) error { return c.settle(ctx, 3) }); err != nil {
				t.Fatal(err)
			}
			r := c.result(3)
			if want := (tally{Expected: 3, Live: 2, Recovered: 1}); r.Tally != want || r.Violations > 0 || (c.rejected.Load() == 1) == accept {
				t.Errorf("%v, %d violations (%s), %d tickets rejected", r.Tally, r.Violations, r.First, c.rejected.Load())
			}
			a := c.clients[0].absences
			if len(a) != 1 || a[0].cause != causeRestart || a[0].resumed != accept || a[0].back.Before(a[0].tried) {
				t.Errorf("absences %+v", a)
			}
		})
	}
}

// TestCentrifugo recovers in the protocol of Centrifugo, and once is told that it cannot.
func TestCentrifugo(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer string // to the second subscribe
		want   tally
	}{
		"recovered": {`{"id":2,"subscribe":{"epoch":"e","offset":3,"was_recovering":true,"recovered":true,"publications":[` +
			`{"data":{"room":"a","n":2},"offset":2},{"data":{"room":"a","n":3},"offset":3}]}}`, tally{Expected: 4, Live: 2, Recovered: 2}},
		"not recovered": {`{"id":2,"subscribe":{"epoch":"f","offset":3,"was_recovering":true}}`, tally{Expected: 4, Live: 2, Reported: 2}},
		"lost":          {`{"id":2,"subscribe":{"epoch":"e","offset":3,"was_recovering":true,"recovered":true}}`, tally{Expected: 4, Live: 2, Missed: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeServer(t, func(connection int, p *fakePeer) {
				p.hears(`"connect"`)
				p.says(`{"id":1,"connect":{"client":"x","ping":25,"pong":true}}` + "\n{}")
				if connection == 0 {
					if !p.hears(`"subscribe":{"channel":"a"}`) || !p.hears("{}") {
						return
					}
					p.says(`{"id":2,"subscribe":{"epoch":"e","recoverable":true}}`, `{"push":{"channel":"a","pub":{"data":{"room":"a","n":1},"offset":1}}}`)
					p.closes(3001)
					return
				}
				if !p.hears(`"recover":true,"offset":1,"epoch":"e"`) || !p.hears("{}") {
					return
				}
				p.says(tc.answer, `{"push":{"channel":"a","pub":{"data":{"room":"a","n":4},"offset":4}}}`)
				p.hears("nothing")
			})
			c := newCrowd(centrifugoDialect, []string{f.ln.Addr().String()}, 1, []string{"a"}, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := c.during(ctx, func(ctx context.Context) error {
				for int(c.received.Load()) < tc.want.Live+tc.want.Recovered {
					if err := sleep(ctx, time.Millisecond); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if r := c.result(4); r.Tally != tc.want || r.Violations > 0 {
				t.Errorf("%v, %d violations (%s); want %v", r.Tally, r.Violations, r.First, tc.want)
			}
		})
	}
}

// TestClientNoticesADeadServer answers heartbeats for a while, and then nothing.
func TestClientNoticesADeadServer(t *testing.T) {
	t.Parallel()
	const quick = `{"event":"connected","data":{"id":"x"},"hearth":{"version":1,"features":[],"heartbeat":{"interval":30,"timeout":60}}}`
	f := newFakeServer(t, func(connection int, p *fakePeer) {
		p.hears(`"authenticate"`)
		p.says(quick)
		p.hears(`"join"`)
		p.says(`{"event":"join","data":{"joined":[{"room":"a"}],"rejected":[]},"id":"j"}`)
		for range 3 {
			p.hears(`{"event":"heartbeat"}`)
			p.says(`{"event":"heartbeat"}`)
		}
		if connection > 0 {
			p.says(`{"event":"m","data":{"room":"a","n":1}}`)
		}
		p.hears("nothing") // the client ends the connection
	})
	c := newCrowd(hearthDialect, []string{f.ln.Addr().String()}, 1, []string{"a"}, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := c.during(ctx, func(ctx context.Context) error {
		for c.received.Load() == 0 {
			if err := sleep(ctx, time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := c.clients[0].absences; len(a) == 0 || a[0].cause != causeDead {
		t.Errorf("absences %+v", a)
	}
}

// TestClientIsCut checks the three ways in which a client loses its connection, as its server sees
// them.
func TestClientIsCut(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 10)
	f := newFakeServer(t, func(_ int, p *fakePeer) {
		p.hears(`"authenticate"`)
		p.says(welcome)
		p.hears(`"join"`)
		p.says(joined(`"offset":0,"epoch":"e"`))
		_ = p.conn.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
		end := "silence"
		if head, err := p.in.Peek(1); err == nil && head[0] == final|opClose {
			end = "close"
			p.closes(1000)
		} else if err != nil && strings.Contains(err.Error(), "reset") {
			end = "reset"
		}
		select {
		case seen <- end:
		default:
		}
	})
	c := newCrowd(hearthDialect, []string{f.ln.Addr().String()}, 1, []string{"a"}, 1)
	c.every, c.away = 40*time.Millisecond, time.Millisecond
	c.cutting.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ends := map[string]int{}
	err := c.during(ctx, func(ctx context.Context) error {
		for range 6 {
			select {
			case end := <-seen:
				ends[end]++
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err != nil || !slices.Equal(slices.Sorted(maps.Keys(ends)), []string{"close", "reset", "silence"}) {
		t.Errorf("%v: the server saw %v", err, ends)
	}
}

// TestSocketContinuesAfterADeadline sends half of a message, and the rest after a deadline of the
// client, and then a message that is larger than its buffer.
func TestSocketContinuesAfterADeadline(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 30_000)
	f := newFakeServer(t, func(_ int, p *fakePeer) {
		_, _ = io.WriteString(p.conn, "\x81\x05sh")
		p.hears("go on")
		_, _ = io.WriteString(p.conn, "ort")
		p.says(long, "again")
		p.hears("nothing")
	})
	s, err := dial(t.Context(), f.ln.Addr().String(), "/ws")
	if err != nil {
		t.Fatal(err)
	}
	defer s.reset()
	if err := s.setDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.receive(func() {}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%q, %v", got, err)
	}
	if err := errors.Join(s.setDeadline(time.Time{}), s.send([]byte("go on"))); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"short", long, "again"} {
		got, err := s.receive(func() {})
		if err != nil || string(got) != want {
			t.Fatalf("%v: %d bytes, want %d", err, len(got), len(want))
		}
	}
}
