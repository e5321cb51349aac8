package resp

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
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeConn reads from r, and keeps nothing that is written.
type fakeConn struct {
	net.Conn
	r io.Reader
}

func (c *fakeConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *fakeConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *fakeConn) Close() error                { return nil }

// A pieceReader returns its text in pieces of the given lengths, the last of them again and again.
type pieceReader struct {
	text   string
	pieces []int
}

func (r *pieceReader) Read(p []byte) (int, error) {
	if r.text == "" {
		return 0, io.EOF
	}
	n := 1
	if len(r.pieces) > 0 {
		n = max(r.pieces[0], 1)
	}
	if len(r.pieces) > 1 {
		r.pieces = r.pieces[1:]
	}
	n = copy(p, r.text[:min(n, len(r.text))])
	r.text = r.text[n:]
	return n, nil
}

// push returns a push of strings; numbers become integers, except in the first place.
func push(elements ...string) string {
	b := fmt.Appendf(nil, ">%d\r\n", len(elements))
	for i, e := range elements {
		if _, err := strconv.Atoi(e); err == nil && i > 0 && strings.HasSuffix(elements[0], "subscribe") {
			b = fmt.Appendf(b, ":%s\r\n", e)
			continue
		}
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(e), e)
	}
	return string(b)
}

// received is what a connection makes of a text.
type received struct {
	messages []string // channel, payload and size
	replies  []string // in order, those of unfinished calls included
	err      error    // why it ended; io.EOF at the end of the text
}

func (r received) String() string {
	return fmt.Sprintf("messages %.200q, replies %.200q, error %v", r.messages, r.replies, r.err)
}

// receive reads a text after commands were sent. The connection accepts messages unless maxMessage
// is 0.
func receive(r io.Reader, maxMessage int, commands ...[]string) (out received) {
	var waiting []Message // of one read, as in a batch
	o := Options{MaxMessage: maxMessage}
	if maxMessage > 0 {
		o.OnMessage = func(m Message) { waiting = append(waiting, m) }
		o.BeforeRead = func() {
			for _, m := range waiting {
				out.messages = append(out.messages, fmt.Sprintf("%s %s %d", m.Channel, m.Payload, m.Size))
				m.Buffer.Release()
			}
			waiting = nil
		}
	}
	c := newConn(&fakeConn{r: r}, o)
	k := newCall(len(commands))
	if err := c.expect(k, commands); err != nil {
		out.err = err
		return out
	}
	c.read()
	if o.BeforeRead != nil {
		o.BeforeRead()
	}
	for _, v := range k.replies {
		out.replies = append(out.replies, render(v))
	}
	out.err = c.Err()
	return out
}

func render(v Value) string {
	switch v.kind {
	case 0:
		return "null"
	case ':':
		return fmt.Sprint(v.num)
	case '*', '~', '%':
		texts := make([]string, len(v.elems))
		for i, e := range v.elems {
			texts[i] = render(e)
		}
		return string(v.kind) + "[" + strings.Join(texts, " ") + "]"
	}
	return string(v.kind) + v.text
}

// FuzzConn checks that nothing that a server sends makes a connection panic, hang, or leave a call
// without an end.
func FuzzConn(f *testing.F) {
	for _, s := range []string{
		push("subscribe", "a", "1") + push("message", "a", "y"), "+OK\r\n+OK\r\n", "-QUEUED\r\n", "-BUSY\r\n-BUSY 'ping'\r\n", "-LOADING\r\n+PONG\r\n",
		push("subscribe", "a", "1") + push("unsubscribe", "a", "0") + "-MISCONF disk\r\n%1\r\n+proto\r\n:3\r\n", ">3\r\n+subscribe\r\n:1\r\n", "*1\r\n+pong\r\n",
		push("subscribe", "a", "1") + "-PONG 'ping'\r\n+PONG\r\n%0\r\n",
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
		wait, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		c, err := Connect(t.Context(), here, Options{ClientName: "x", OnMessage: func(m Message) { m.Buffer.Release() }, MaxMessage: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range [][]string{{"SUBSCRIBE", "a"}, {"UNSUBSCRIBE", "a"}, {"HELLO"}} {
			_, _ = c.Do(wait, command...)
		}
		c.Close()
		<-done
	})
}

// serve connects to a server that first answers HELLO and then calls talk with its side.
func serve(t *testing.T, o Options, talk func(net.Conn)) *Conn {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() { // ends when talk returns; waited for in Cleanup
		defer close(done)
		defer func() { _ = there.Close() }()
		if _, err := there.Read(make([]byte, 4096)); err == nil {
			_, _ = io.WriteString(there, "%0\r\n")
			talk(there)
		}
	}()
	c, err := Connect(t.Context(), here, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); <-done })
	return c
}

// TestPipeline checks that replies come in the order of the commands, that an error reply is the
// result of one command only, and what is written.
func TestPipeline(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	c := serve(t, Options{}, func(conn net.Conn) {
		b := make([]byte, 4096)
		n, _ := conn.Read(b)
		got <- string(b[:n])
		_, _ = io.WriteString(conn, ":1\r\n-NOPERM no\r\n"+push("subscribe", "a", "1")+push("subscribe", "b", "2")+"*2\r\n$1\r\nx\r\n_\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
	replies, err := c.Pipeline(t.Context(), []string{"PUBLISH", "a", ""}, []string{"GET", "k"}, []string{"SUBSCRIBE", "a", "b"}, []string{"EVALSHA", "x"})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, v := range replies {
		texts = append(texts, render(v))
	}
	if text := strings.Join(texts, " "); text != "1 -NOPERM no null *[$x null]" {
		t.Errorf("replies %s", text)
	}
	var reply Error
	if err := replies[1].Err(); !errors.As(err, &reply) || reply != "NOPERM no" {
		t.Errorf("error %v", err)
	}
	if want := "*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n"; !strings.HasPrefix(<-got, want) {
		t.Errorf("written: %q", want)
	}
}

// TestEnds checks what calls return when the connection ends, during them and before.
func TestEnds(t *testing.T) {
	t.Parallel()
	silent := func(_ *testing.T, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	nothing := func(*Conn, context.CancelFunc) {}
	for name, tt := range map[string]struct {
		talk func(*testing.T, net.Conn)
		end  func(*Conn, context.CancelFunc)
		want error
	}{
		"context": {silent, func(_ *Conn, cancel context.CancelFunc) { cancel() }, context.Canceled},
		"Close":   {silent, func(c *Conn, _ context.CancelFunc) { c.Close() }, net.ErrClosed},
		"Abort":   {silent, func(c *Conn, _ context.CancelFunc) { c.Abort() }, net.ErrClosed},
		"server":  {func(_ *testing.T, conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) }, nothing, io.EOF},
		"garbage": {func(t *testing.T, conn net.Conn) {
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			silent(t, conn)
		}, nothing, ErrProtocol},
		"a server that does not read": {func(t *testing.T, _ net.Conn) { <-t.Context().Done() },
			func(_ *Conn, cancel context.CancelFunc) { cancel() }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := serve(t, Options{}, func(conn net.Conn) { tt.talk(t, conn) })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				failed := make(chan error, 1)
				go func() { // ends with the connection; received below
					_, err := c.Do(ctx, "PING")
					failed <- err
				}()
				synctest.Wait()
				tt.end(c, cancel)
				if err := <-failed; !errors.Is(err, tt.want) {
					t.Errorf("during: %v, want %v", err, tt.want)
				}
				<-c.Done()
				if _, err := c.Do(t.Context(), "PING"); !errors.Is(err, tt.want) || !errors.Is(c.Err(), tt.want) {
					t.Errorf("afterwards: %v, and Err is %v, want %v", err, c.Err(), tt.want)
				}
			})
		})
	}
}

// TestConnectRejected checks that the error of a server that rejects the connection before it was
// asked is returned.
func TestConnectRejected(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() { // ends when the client has closed; waited for below
		defer close(done)
		_, _ = io.WriteString(there, "-ERR max number of clients reached\r\n")
		_, _ = there.Read(make([]byte, 4096))
		_ = there.Close()
	}()
	_, err := Connect(t.Context(), here, Options{DB: 3})
	var reply Error
	if !errors.As(err, &reply) || !strings.Contains(err.Error(), "max number") {
		t.Errorf("error %v", err)
	}
	<-done
}

func TestValue(t *testing.T) {
	t.Parallel()
	read := func(text string) Value {
		r := newConn(&fakeConn{r: strings.NewReader(text)}, Options{}).reader
		v, err := r.value()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	about := read("%2\r\n+role\r\n$6\r\nmaster\r\n$5\r\nproto\r\n:3\r\n")
	if role, err := about.Get("role").Text(); role != "master" || err != nil {
		t.Errorf("role %q, %v", role, err)
	}
	if proto, err := about.Get("proto").Int(); proto != 3 || err != nil {
		t.Errorf("proto %d, %v", proto, err)
	}
	if !about.Get("mode").IsNull() {
		t.Error("a value for no key")
	}
	if texts, err := read("*2\r\n=5\r\ntxt:a\r\n+b\r\n").Strings(); strings.Join(texts, " ") != "a b" || err != nil {
		t.Errorf("strings %q, %v", texts, err)
	}
	if _, err := read("*1\r\n:1\r\n").Strings(); !errors.Is(err, ErrType) {
		t.Errorf("strings of numbers: %v", err)
	}
	for _, get := range []func(Value) error{
		func(v Value) error { _, err := v.Text(); return err },
		func(v Value) error { _, err := v.Int(); return err },
		func(v Value) error { _, err := v.Array(); return err },
	} {
		if err := get(read("_\r\n")); !errors.Is(err, ErrType) {
			t.Errorf("of null: %v", err)
		}
		if err := get(read("-BUSY x\r\n")); err != Error("BUSY x") {
			t.Errorf("of an error: %v", err)
		}
	}
}

// BenchmarkPipeline is the cost of a published message: its command is written, and its reply read.
func BenchmarkPipeline(b *testing.B) {
	const pipeline = 512
	command := []string{"PUBLISH", "ws:room:lobby", strings.Repeat("x", 250)}
	replies := []byte(strings.Repeat(":1\r\n", pipeline))
	commands := make([][]string, pipeline)
	for i := range commands {
		commands[i] = command
	}
	var r bytes.Reader
	c := newConn(&fakeConn{r: &r}, Options{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%pipeline > 0 {
			continue
		}
		r.Reset(replies)
		k := newCall(pipeline)
		_ = c.expect(k, commands)
		c.write(commands)
		for k.left > 0 {
			if err := c.readReply(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
