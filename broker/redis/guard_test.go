package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/redis/rueidis"
)

// A fakeConn reads from r, and keeps nothing.
type fakeConn struct {
	net.Conn
	r io.Reader
}

func (c *fakeConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *fakeConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *fakeConn) Close() error                { return nil }

// command is how rueidis writes one.
func command(words ...string) string {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return string(b)
}

// pushed is a push of bodies; numbers are integers.
func pushed(elements ...string) string {
	b := fmt.Appendf(nil, ">%d\r\n", len(elements))
	for i, e := range elements {
		if _, err := strconv.Atoi(e); err == nil && i > 0 {
			b = fmt.Appendf(b, ":%s\r\n", e)
			continue
		}
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(e), e)
	}
	return string(b)
}

// guarded is what comes out of a guard that was told what was asked.
func guarded(r io.Reader, questions string) (string, error) {
	g := newGuard(&fakeConn{r: r}, nil)
	_, _ = g.Write([]byte(questions))
	out, err := io.ReadAll(g)
	return string(out), err
}

// TestGuard checks what comes out, read as it comes and byte by byte.
func TestGuard(t *testing.T) {
	t.Parallel()
	greet, subscribe, unsubscribe, ping := command("HELLO", "3"), command("SUBSCRIBE", "a", "b"), command("UNSUBSCRIBE", "a"), command("PING")
	for name, tt := range map[string]struct {
		asked, in, out string // out is in if empty
		bad            string
	}{
		"nothing":           {},
		"reply":             {asked: greet, in: "%2\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*2\r\n*0\r\n~1\r\n_\r\n"},
		"scalars":           {asked: greet, in: "*9\r\n+\r\n-E\r\n:-5\r\n,1.5\r\n#t\r\n(123\r\n=5\r\ntxt:a\r\n!1\r\ne\r\n$-1\r\n"},
		"old null":          {asked: greet, in: "*-1\r\n"},
		"unknown push":      {in: pushed("server-cpu-usage", "7") + ">2\r\n$3\r\nnew\r\n*1\r\n%1\r\n+a\r\n_\r\n"},
		"push before reply": {asked: greet, in: pushed("new", "c", "y") + "+OK\r\n"},
		"subscribed":        {asked: subscribe + greet, in: pushed("subscribe", "a", "1") + pushed("subscribe", "b", "2") + "+OK\r\n"},
		"refused":           {asked: subscribe + greet, in: "-NOPERM no\r\n+OK\r\n"},
		"unsubscribed":      {asked: unsubscribe + ping, in: pushed("unsubscribe", "a", "0") + "+PONG\r\n"},
		"ping refused":      {asked: unsubscribe + ping, in: pushed("unsubscribe", "a", "0") + "-MISCONF disk\r\n", out: pushed("unsubscribe", "a", "0") + "+PONG\r\n"},
		"both refused":      {asked: unsubscribe + ping, in: "-BUSY with a script\r\n-BUSY with a script\r\n", out: "-ERR it is busy\r\n+PONG\r\n"},
		"only it refused":   {asked: unsubscribe + ping, in: "-NOPERM no\r\n+PONG\r\n"},
		"half a push":       {in: pushed("new", "c", "y")[:16], out: ">3\r\n$3\r\nnew\r\n"},

		"message":          {in: pushed("message", "c", "y"), out: ">3\r\n", bad: "nobody has asked"},
		"unasked":          {asked: greet, in: "+OK\r\n+OK\r\n", out: "+OK\r\n", bad: "a reply to no question"},
		"one too many":     {asked: subscribe, in: pushed("subscribe", "a", "1") + pushed("subscribe", "b", "2") + pushed("subscribe", "b", "2"), out: pushed("subscribe", "a", "1") + pushed("subscribe", "b", "2") + ">3\r\n", bad: "nobody has asked"},
		"early reply":      {asked: subscribe, in: pushed("subscribe", "a", "1") + "-ERR\r\n", out: pushed("subscribe", "a", "1"), bad: "a subscription was answered"},
		"queued":           {asked: subscribe, in: "-QUEUED\r\n", bad: "a subscription was answered"},
		"no pong":          {asked: ping, in: "+PANG\r\n", bad: "PING was answered"},
		"ends too late":    {in: ">3\r\n$3\r\nnews\r\n", out: ">3\r\n", bad: "longer than its header"},
		"body too long":    {in: ">3\r\n$3\r\nnew\r\n$1\r\ncc\r\n", out: ">3\r\n$3\r\nnew\r\n$1\r\nc", bad: "longer than its header"},
		"deep":             {asked: greet, in: strings.Repeat("*1\r\n", 9), out: strings.Repeat("*1\r\n", 8), bad: "within each other"},
		"many":             {asked: greet, in: "*16385\r\n", bad: "a length of"},
		"large reply":      {asked: greet, in: "$65537\r\n", bad: "a length of"},
		"push in an array": {asked: greet, in: "*1\r\n>1\r\n", out: "*1\r\n", bad: "a push within"},
		"long line":        {asked: greet, in: "+" + strings.Repeat("x", maxLine), bad: "a line of more"},
	} {
		if tt.out == "" && tt.bad == "" {
			tt.out = tt.in
		}
		for way, r := range map[string]io.Reader{
			"whole": strings.NewReader(tt.in), "cut": iotest.OneByteReader(strings.NewReader(tt.in)),
		} {
			out, err := guarded(r, tt.asked)
			if out != tt.out || (err == nil) != (tt.bad == "") || err != nil && (!errors.Is(err, errGarbage) || !strings.Contains(err.Error(), tt.bad)) {
				t.Errorf("%s, %s: got %q, %v; want %q, %q", name, way, out, err, tt.out, tt.bad)
			}
		}
	}
}

// TestGuardValue: a value is bounded as a whole, however small its parts are, and the name of a channel like one.
func TestGuardValue(t *testing.T) {
	t.Parallel()
	part := fmt.Sprintf("$%d\r\n%s\r\n", maxString, strings.Repeat("x", maxString))
	fits := maxValue / len(part)
	for name, tt := range map[string]struct{ asked, in, bad string }{
		"two fit":   {asked: command("HELLO") + command("HELLO"), in: fmt.Sprintf("*%d\r\n", fits) + strings.Repeat(part, fits+1)},
		"does not":  {asked: command("HELLO"), in: fmt.Sprintf("*%d\r\n", fits+1) + strings.Repeat(part, fits+1), bad: "a value of more"},
		"long name": {asked: command("SUBSCRIBE", "a"), in: pushed("subscribe", strings.Repeat("x", 1<<20), "1")},
		"too long":  {asked: command("SUBSCRIBE", "a"), in: fmt.Sprintf(">3\r\n$9\r\nsubscribe\r\n$%d\r\n", maxValue+1), bad: "a length of"},
	} {
		g := newGuard(&fakeConn{r: strings.NewReader(tt.in)}, nil)
		_, _ = g.Write([]byte(tt.asked))
		passed, err := io.Copy(io.Discard, g)
		if all := passed == int64(len(tt.in)); all != (tt.bad == "") || all != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%s: passed %d bytes of %d, %v; want %q", name, passed, len(tt.in), err, tt.bad)
		}
	}
}

// FuzzGuard: however the input is cut it means the same, and never more than what came in.
func FuzzGuard(f *testing.F) {
	f.Add([]byte(pushed("new", "c", strings.Repeat("x", 200))+"+OK\r\n"), []byte{3, 1}, []byte(command("HELLO")))
	f.Add([]byte(pushed("subscribe", "a", "1")+pushed("subscribe", "b", "2")), []byte{1}, []byte(command("SUBSCRIBE", "a", "b")))
	f.Add([]byte(pushed("unsubscribe", "a", "0")+"-MISCONF x\r\n"), []byte{}, []byte(command("UNSUBSCRIBE", "a")+command("PING")))
	f.Add([]byte("%1\r\n+a\r\n*1\r\n~1\r\n#t\r\n$-1\r\n"), []byte{7}, []byte(command("HELLO")+command("HELLO")))
	f.Fuzz(func(t *testing.T, input, cuts, asked []byte) {
		want, wantErr := guarded(bytes.NewReader(input), string(asked))
		got, err := guarded(&cutReader{rest: input, cuts: cuts}, string(asked))
		if got != want || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("cut: %q, %v\nwhole: %q, %v", got, err, want, wantErr)
		}
		if len(want) > len(input) {
			t.Fatalf("%q has grown to %q", input, want)
		}
	})
}

// A cutReader gives pieces of cut sizes.
type cutReader struct {
	rest, cuts []byte
	i          int
}

func (r *cutReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(r.cuts) > 0 {
		n = int(r.cuts[r.i%len(r.cuts)])%len(p) + 1
		r.i++
	}
	n = copy(p[:min(n, len(p))], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// FuzzGuardedClient: nothing that a server sends makes rueidis panic, which would end the process, or this test.
func FuzzGuardedClient(f *testing.F) {
	for _, s := range []string{
		pushed("subscribe", "a", "1") + pushed("message", "a", "y"), "+OK\r\n+OK\r\n", "-QUEUED\r\n", "-BUSY\r\n-BUSY 'ping'\r\n", "-LOADING\r\n+PONG\r\n",
		pushed("subscribe", "a", "1") + pushed("unsubscribe", "a", "0") + "-MISCONF disk\r\n%1\r\n+proto\r\n:3\r\n", ">3\r\n+subscribe\r\n:1\r\n", "*1\r\n+pong\r\n",
		pushed("subscribe", "a", "1") + "-PONG 'ping'\r\n+PONG\r\n%0\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answers []byte) {
		here, there := net.Pipe()
		done := make(chan struct{})
		go func() { // ends when the client has closed its side; waited for below
			defer close(done)
			defer func() { _ = there.Close() }()
			b := make([]byte, 4096)
			if _, err := there.Read(b); err != nil { // HELLO
				return
			}
			_, _ = io.WriteString(there, "%1\r\n$5\r\nproto\r\n:3\r\n")
			_, _ = there.Read(b)                              // SUBSCRIBE
			go func() { _, _ = io.Copy(io.Discard, there) }() // ends with the pipe
			_, _ = there.Write(answers)
		}()
		asks(t, guardedAsSubscription(here))
		<-done
	})
}

// guardedAsSubscription is conn as a subscription's wire has it.
func guardedAsSubscription(conn net.Conn) net.Conn {
	return newGuard(conn, &hooks{message: func(incoming) {}, reading: func() {}, max: 100})
}

// asks uses a connection as a subscription does.
func asks(t *testing.T, conn net.Conn) {
	t.Helper()
	dialed := false
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"x"}, ForceSingleClient: true, DisableRetry: true, DisableCache: true, PipelineMultiplex: -1, RingScaleEachConn: 4,
		ClientSetInfo: rueidis.DisableClientSetInfo, ReadBufferEachConn: 1 << 12, WriteBufferEachConn: 1 << 12, Dialer: net.Dialer{KeepAlive: -1},
		DialCtxFn: func(_ context.Context, _ string, _ *net.Dialer, _ *tlsConfig) (net.Conn, error) {
			if !dialed {
				dialed = true
				return nil, errUnused
			}
			return conn, nil
		},
	})
	if client == nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, _ := client.Dedicate()
	defer c.Close()
	dead := c.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
	wait, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	b := c.B()
	for _, commands := range [][]rueidis.Completed{
		{b.Subscribe().Channel("a").Build()}, {b.Unsubscribe().Channel("a").Build()}, {b.Arbitrary("HELLO").Build()},
	} {
		c.DoMulti(wait, commands...)
	}
	_ = conn.Close()
	for range dead {
	}
}

// BenchmarkGuard is what the guard adds to a message that is published: the command is noted, and its reply checked.
func BenchmarkGuard(b *testing.B) {
	const pipeline = 512
	one := command("PUBLISH", "ws:room:lobby", line("5f4dcc3b-5aa7-65d6-1d83-27deb882cf99", "message", 100))
	commands, replies := []byte(strings.Repeat(one, pipeline)), strings.Repeat(":1\r\n", pipeline)
	var r strings.Reader
	g := newGuard(&fakeConn{r: &r}, nil)
	p := make([]byte, 4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%pipeline > 0 {
			continue
		}
		r.Reset(replies)
		_, _ = g.Write(commands)
		for r.Len() > 0 {
			if _, err := g.Read(p); err != nil {
				b.Fatal(err)
			}
		}
	}
}
