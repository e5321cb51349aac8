//go:build unix

package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/cli"
	"github.com/hearthws/hearth/internal/test/redistest"
)

func TestEmitUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	large := write("large.json", `"`+strings.Repeat("x", 4<<20)+`"`)
	blank := write("blank.json", " \n")
	const unreachable = "redis://127.0.0.1:1"
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		err  string // in stderr
	}{
		{"nothing", nil, nil, "no target"},
		{"no redis", []string{"room", "r", "e", "1"}, nil, "--redis redis://localhost:6379"},
		{"empty variable", []string{"room", "r", "e", "1"}, []string{"HEARTH_REDIS="}, "which Redis?"},
		{"empty flag", []string{"--redis", "", "room", "r", "e", "1"}, []string{"HEARTH_REDIS=" + unreachable}, "which Redis?"},
		{"client", []string{"--redis", unreachable, "client", "ada", "e", "1"}, nil, "no client has the id \"ada\""},
		{"bad url", []string{"--redis", "localhost:6379", "room", "r", "e", "1"}, nil, "takes a URL"},
		{"bad variable", []string{"room", "r", "e", "1"}, []string{"HEARTH_REDIS=http://x"}, "HEARTH_REDIS"},
		{"bad prefix", []string{"--redis", unreachable, "--redis-prefix", "a*", "room", "r", "e", "1"}, nil, "--redis-prefix"},
		{"bad history", []string{"--redis", unreachable, "--history", "chat", "room", "r", "e", "1"}, nil, "--history"},
		{"bad history in a variable", []string{"--redis", unreachable, "room", "r", "e", "1"}, []string{"HEARTH_HISTORY=a=1/1m,b=2"}, `"b=2" has no age`},
		{"key without history", []string{"--redis", unreachable, "--key", "k", "room", "r", "e", "1"}, nil, "--history 'r=100/5m'"},
		{"key for a user", []string{"--redis", unreachable, "--key", "k", "user", "r", "e", "1"}, nil, "not for a user"},
		{"empty key", []string{"--redis", unreachable, "--key", "", "room", "r", "e", "1"}, nil, "--key is empty"},
		{"key and lines", []string{"--redis", unreachable, "--key", "k", "--lines"}, nil, `its own "key"`},
		{"unknown target", []string{"rooms", "r", "e", "1"}, nil, "give room, user, client or all"},
		{"no name", []string{"room"}, nil, "which room?"},
		{"no event", []string{"room", "r"}, nil, "which event?"},
		{"no event for all", []string{"all"}, nil, "which event?"},
		{"a word", []string{"room", "r", "e", "hello"}, nil, `'"hello"'`},
		{"unquoted", []string{"room", "r", "e", "{n:1}"}, nil, "data is not JSON"},
		{"too many words", []string{"room", "r", "e", `{"n":`, "1}"}, nil, "quote the data"},
		{"empty data", []string{"room", "r", "e", ""}, nil, "the data is empty"},
		{"empty event", []string{"room", "r", "", "1"}, nil, "name is empty"},
		{"bad room", []string{"room", "ws:r", "e", "1"}, nil, `starts with "ws:"`},
		{"empty user", []string{"user", "", "e", "1"}, nil, "id of the user is empty"},
		{"minus", []string{"all", "e", "-5"}, nil, "put -- before data"},
		{"exclude from a user", []string{"user", "u", "e", "1", "--exclude", "x"}, nil, "not from a user"},
		{"data twice", []string{"all", "e", "1", "--file", "x.json"}, nil, "data given twice"},
		{"missing file", []string{"all", "e", "--file", "nowhere.json"}, nil, "nowhere.json"},
		{"large file", []string{"all", "e", "--file", large}, nil, "larger than 4 MiB"},
		{"blank file", []string{"all", "e", "--file", blank}, nil, "the data is empty"},
		{"timeout", []string{"all", "e", "1", "--timeout", "0s", "--redis", unreachable}, nil, "at least 1ms"},
		{"keep going", []string{"all", "e", "1", "--keep-going"}, nil, "--keep-going works only with --lines"},
		{"lines and file", []string{"--lines", "--file", "x"}, nil, "after --lines"},
		{"lines and exclude", []string{"--lines", "--exclude", "x"}, nil, "its own \"exclude\""},
		{"lines of two files", []string{"--lines", "a", "b"}, nil, "takes one FILE"},
		{"lines of no file", []string{"--lines", "nowhere.jsonl"}, nil, "nowhere.jsonl"},
		{"lines without redis", []string{"--lines", blank}, nil, "which Redis?"},
		{"misspelled", []string{"--line"}, nil, "hearth emit --help"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run(tt.env, append([]string{"emit"}, tt.args...)...)
			if code != cli.ExitUsage || stdout != "" || !strings.Contains(stderr, tt.err) {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
			}
		})
	}
}

// A place is a Redis, a Hearth server that uses it, and a client of that server.
type place struct {
	t     *testing.T
	redis *redistest.Server
	id    string // the id of the client
	conn  *websocket.Conn
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, redis: redistest.Start(t)}
	b, err := redis.New(redis.Config{URL: p.redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	type login struct{ Name string }
	srv, err := hearth.New(hearth.Config[login, struct{}]{
		Broker:       b,
		DefaultRooms: []string{"lobby"},
		Authenticate: func(_ context.Context, r hearth.AuthRequest[login]) (hearth.Identity[struct{}], error) {
			return hearth.Identity[struct{}]{UserID: r.Credentials.Name}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := srv.Start(ctx); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln, nil) }() // ends with Shutdown; read in the cleanup
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, hearth.ErrServerClosed) {
			t.Error(err)
		}
	})
	if p.conn, _, err = websocket.Dial(ctx, "ws://"+ln.Addr().String()+"/ws", nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.conn.CloseNow() })
	if err := p.conn.Write(ctx, websocket.MessageText, []byte(`{"event":"authenticate","data":{"name":"ada"}}`)); err != nil {
		t.Fatal(err)
	}
	if text := p.next(); !strings.Contains(text, `"connected"`) {
		t.Fatal(text)
	}
	for _, c := range srv.Local().Clients(hearth.ToAll()) {
		p.id = c.ID()
	}
	return p
}

func (p *place) next() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), limit)
	defer cancel()
	_, b, err := p.conn.Read(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *place) wants(messages ...string) {
	p.t.Helper()
	for _, want := range messages {
		if got := p.next(); got != want {
			p.t.Errorf("the client got %s\nwant %s", got, want)
		}
	}
}

// An emitting is a running hearth emit.
type emitting struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr strings.Builder
}

// emit starts hearth emit with the Redis of this place.
func (p *place) emit(args ...string) *emitting {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	p.t.Cleanup(cancel)
	e := &emitting{t: p.t, cmd: exec.CommandContext(ctx, os.Args[0], append([]string{"emit"}, args...)...)}
	e.cmd.Env = append(os.Environ(), mainVariable+"=1", "HEARTH_REDIS="+p.redis.URL())
	e.cmd.Stderr = &e.stderr
	var err error
	if e.in, err = e.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return e
}

func (e *emitting) write(text string) {
	e.t.Helper()
	if _, err := io.WriteString(e.in, text); err != nil {
		e.t.Fatal(err)
	}
}

// ends waits for the process to end and checks the exit code and stderr.
func (e *emitting) ends(code int, said ...string) {
	e.t.Helper()
	err := e.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		e.t.Fatal(err)
	}
	stderr := e.stderr.String()
	if got := e.cmd.ProcessState.ExitCode(); got != code {
		e.t.Errorf("exit code %d, want %d; stderr %q", got, code, stderr)
	}
	for _, text := range said {
		if !strings.Contains(stderr, text) || text == "" && stderr != "" {
			e.t.Errorf("stderr %q, want %q", stderr, text)
		}
	}
}

func TestEmit(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for i, args := range [][]string{
		{"room", "lobby"}, {"user", "ada"}, {"client", p.id}, {"all"}, {"broadcast"}, {"room", p.id}, {"all", "--exclude", "x"},
	} {
		event := fmt.Sprint("m", i)
		p.emit(append(args, event, `{"n":12345678901234567890.50}`)...).ends(cli.ExitOK, "")
		p.wants(`{"event":"` + event + `","data":{"n":12345678901234567890.50}}`)
	}
	p.emit("all", "excluded", "1", "--exclude", "x", "--exclude", p.id).ends(cli.ExitOK, "")
	p.emit("room", "elsewhere", "e", "1").ends(cli.ExitOK, "") // a room without members is not an error
	p.emit("all", "minus", "--", "-5").ends(cli.ExitOK, "")
	e := p.emit("all", "from stdin", "--file", "-")
	e.write(" [1, 2]\n")
	e.in.Close()
	e.ends(cli.ExitOK, "")
	file := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(file, []byte("null\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.emit("all", "from a file", "--file", file).ends(cli.ExitOK, "")
	p.wants(`{"event":"minus","data":-5}`, `{"event":"from stdin","data":[1, 2]}`, `{"event":"from a file","data":null}`)
}

// TestEmitToServe checks that an event of hearth emit reaches a client of hearth serve.
func TestEmitToServe(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	store := redistest.Start(t)
	server := start(t, "--redis", store.URL())
	c := server.connect(ctx)
	code, _, stderr := run(nil, "emit", "user", "ada", "mail", `{"n":1.50}`, "--redis", store.URL())
	if code != cli.ExitOK || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	for got := ""; got != `{"event":"mail","data":{"n":1.50}}`; { // presence and other events come first
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got = string(b)
	}
}

// TestEmitWithPrefix checks that events reach the servers with the same prefix, and no other
// servers. The prefix comes from a flag or a variable.
func TestEmitWithPrefix(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	store := redistest.Start(t)
	c := start(t, "--redis", store.URL(), "--redis-prefix", "shop:").connect(ctx)
	send := func(env []string, event string, more ...string) {
		args := append([]string{"emit", "all", event, "1", "--redis", store.URL()}, more...)
		if code, _, stderr := run(env, args...); code != cli.ExitOK || stderr != "" {
			t.Fatalf("%s: exit code %d, stderr %q", event, code, stderr)
		}
	}
	send(nil, "to others")
	send(nil, "to others", "--redis-prefix", "sho")
	send([]string{"HEARTH_REDIS_PREFIX=shop:"}, "to others", "--redis-prefix", "")
	send([]string{"HEARTH_REDIS_PREFIX=shop:"}, "by variable")
	send(nil, "by flag", "--redis-prefix", "shop:")
	var got []string
	for !slices.Contains(got, "by flag") {
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("%v, after %q", err, got)
		}
		var m struct{ Event string }
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Event)
	}
	if slices.Contains(got, "to others") || !slices.Contains(got, "by variable") {
		t.Errorf("got %q", got)
	}
}

// TestEmitOnce checks that an event with the same key is sent once, also from lines.
func TestEmitOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	store := redistest.Start(t)
	c := start(t, "--redis", store.URL(), "--default-rooms", "log:1", "--history", "log:*=10/5m").connect(ctx)
	send := func(env []string, args ...string) {
		t.Helper()
		if code, _, stderr := run(env, append([]string{"emit", "--redis", store.URL()}, args...)...); code != cli.ExitOK {
			t.Fatalf("%q: exit code %d, stderr %q", args, code, stderr)
		}
	}
	for range 3 {
		send([]string{"HEARTH_HISTORY=wrong"}, "room", "log:1", "job", "1", "--key", "job 1", "--history", "log:*=10/5m")
	}
	lines := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(lines, []byte(`{"room":"log:1","event":"job","data":2,"key":"job 1"}
{"room":"log:1","event":"job","data":3,"key":"job 2"}
{"room":"log:1","event":"job","data":4}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	send([]string{"HEARTH_HISTORY=other=1/1m,log:*=10/5m"}, "--lines", lines)
	var got []string
	for len(got) == 0 || got[len(got)-1] != "4" {
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("%v, after %q", err, got)
		}
		var m struct {
			Event string
			Data  json.RawMessage
		}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if m.Event == "job" {
			got = append(got, string(m.Data))
		}
	}
	if d := cmp.Diff([]string{"1", "3", "4"}, got); d != "" {
		t.Error(d)
	}
}

const threeLines = `{"room":"lobby","event":"one","data":1}
{"rom":"lobby","event":"bad","data":1}
{"user":"ada","event":"three","data":3}
`

func TestEmitLines(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	e := p.emit("--lines")
	e.write(threeLines)
	e.ends(cli.ExitUsage, `hearth: 1 sent; invalid lines: 1`, `line 2: has an unknown member "rom"`, "--keep-going")
	p.wants(`{"event":"one","data":1}`)

	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(file, []byte(threeLines), 0o600); err != nil {
		t.Fatal(err)
	}
	p.emit("--lines", "--keep-going", file).ends(cli.ExitUsage, "hearth: 2 sent; invalid lines: 1", `line 2: has an unknown member "rom"`)
	p.wants(`{"event":"one","data":1}`, `{"event":"three","data":3}`)

	const many = 5000
	e = p.emit("--lines", "-")
	for i := range many {
		e.write(fmt.Sprintf(`{"all":true,"event":"n","data":%d}`+"\n", i))
	}
	e.in.Close()
	for i := range many {
		p.wants(fmt.Sprintf(`{"event":"n","data":%d}`, i))
	}
	e.ends(cli.ExitOK, "hearth: 5000 sent\n")
}

// TestEmitInterrupted checks that events from a slow pipe are sent as they arrive, and that after a
// signal the command reports how many it sent.
func TestEmitInterrupted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for sig, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		e := p.emit("--lines")
		for i := range 3 {
			e.write(fmt.Sprintf(`{"all":true,"event":"n","data":%d}`+"\n", i))
			p.wants(fmt.Sprintf(`{"event":"n","data":%d}`, i)) // the pipe stays open
		}
		if err := e.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = e.cmd.Process.Signal(sig) // as timeout(1) does; the process may have ended
		e.ends(code, "hearth: 3 sent\n")
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and sends nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	e := p.emit("all", "e", "1", "--timeout", "1h", "--redis", "redis://"+silent.Addr().String())
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := e.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	e.ends(130, "hearth: interrupted; the event may have been sent\n")
}

func TestEmitUnreachable(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(file, []byte(threeLines), 0o600); err != nil {
		t.Fatal(err)
	}
	nowhere := "redis://127.0.0.1:1"
	p.emit("all", "e", "1", "--redis", nowhere, "--timeout", "5s").ends(cli.ExitUnreachable, "127.0.0.1:1", "--redis")
	p.emit("--lines", file, "--redis", nowhere, "--timeout", "5s").ends(cli.ExitUnreachable, "0 sent", "line 1", "--redis")
	p.redis.Freeze()
	p.emit("all", "e", "1", "--timeout", "500ms").ends(cli.ExitFailed, "within 500ms (--timeout)")
	p.redis.Thaw()
}

// TestEmitLosesRedis checks that the command stops at the first event that fails, and reports its
// line.
func TestEmitLosesRedis(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	e := p.emit("--lines", "--timeout", "5s")
	e.write(`{"all":true,"event":"one","data":1}` + "\n\n")
	p.wants(`{"event":"one","data":1}`)
	p.redis.Kill()
	e.write(`{"all":true,"event":"two","data":2}` + "\n")
	e.ends(cli.ExitFailed, "1 sent; failed: 1, first at line 3", "line 3: emit")
}
