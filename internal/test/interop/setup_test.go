// Package interop_test runs Hearth and the published implementation of the protocol side by side on
// one Redis, as during a migration, and checks the promise of docs/protocol.md that clients do not
// notice.
package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/emitter"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/internal/test/reference"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// timeout is how long anything except an installation may take.
const timeout = time.Minute

// install finds the reference. If it is not available the test is skipped with a message; with
// HEARTH_REQUIRE_REFERENCE=1, as in CI, that is a failure.
func install(t *testing.T) reference.Installation {
	t.Helper()
	skip := t.Skip
	if os.Getenv("HEARTH_REQUIRE_REFERENCE") == "1" {
		skip = t.Fatal
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip("NO " + tool + " FOUND: HEARTH IS NOT TESTED BESIDE THE REFERENCE (scripts/setup installs it)")
		}
	}
	_, file, _, _ := runtime.Caller(0)
	cache, err := os.UserCacheDir()
	if err != nil {
		skip(err)
	}
	installed, err := reference.Install(t.Context(), filepath.Join(filepath.Dir(file), "../../../bench/reference"), filepath.Join(cache, "hearth-bench"))
	if err != nil {
		skip("HEARTH IS NOT TESTED BESIDE THE REFERENCE: ", err)
	}
	return installed
}

// A ref is a running reference: its server and its emitter.
type ref struct {
	t       *testing.T
	addr    string
	dir     string // of its logs
	in      io.WriteCloser
	answers chan json.RawMessage // closed with its standard output
}

// startReference starts the reference until the end of the test. The test fails if the reference
// logs an error.
func startReference(t *testing.T, redisAddr string) *ref {
	t.Helper()
	installed := install(t)
	r := &ref{t: t, dir: t.TempDir(), answers: make(chan json.RawMessage)}
	_, file, _, _ := runtime.Caller(0)
	program, err := os.ReadFile(filepath.Join(filepath.Dir(file), "reference.mjs"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(r.dir, "reference.mjs"), program, 0o600))
	must(t, installed.Link(r.dir))

	_, port, err := net.SplitHostPort(redisAddr)
	must(t, err)
	cmd := exec.Command(installed.Bun, "reference.mjs", port)
	cmd.Dir = r.dir
	r.in, err = cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = cmd.Stdout
	must(t, cmd.Start())
	log := make(chan string, 1)
	// Ends with the process's output; the cleanup waits for the log.
	go func() {
		defer close(r.answers)
		var said strings.Builder
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			if answer, found := strings.CutPrefix(line, "@"); found {
				r.answers <- json.RawMessage(answer)
			} else {
				said.WriteString(line)
			}
			if err != nil {
				log <- said.String()
				return
			}
		}
	}()
	t.Cleanup(func() {
		r.in.Close() // it exits normally
		late := time.AfterFunc(timeout, func() { _ = cmd.Process.Kill() })
		for range r.answers {
		}
		said := <-log
		if err := cmd.Wait(); err != nil || !late.Stop() {
			t.Errorf("the reference did not exit normally: %v", err)
		}
		r.checkLog(said)
	})
	var ready struct{ Port int }
	must(t, json.Unmarshal(r.answer(), &ready))
	r.addr = fmt.Sprintf("127.0.0.1:%d", ready.Port)
	return r
}

// checkLog fails the test if the reference has logged an error.
func (r *ref) checkLog(said string) {
	for line := range strings.Lines(said) {
		if lower := strings.ToLower(line); strings.Contains(lower, "error") || strings.Contains(lower, "warn") {
			r.t.Errorf("the reference printed %s", line)
		}
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "*error*.log"))
	must(r.t, err)
	for _, name := range files {
		if b, err := os.ReadFile(name); err != nil || len(b) > 0 {
			r.t.Errorf("the reference has logged errors: %s, %v", b, err)
		}
	}
	if !strings.Contains(said, "WebSocket Server READY") {
		r.t.Errorf("the reference printed no log, so its errors are not known: %q", said)
	}
}

func (r *ref) answer() json.RawMessage {
	r.t.Helper()
	select {
	case a, ok := <-r.answers:
		if !ok {
			r.t.Fatal("the reference has exited")
		}
		return a
	case <-time.After(timeout):
		r.t.Fatal("the reference does not answer")
	}
	return nil
}

// do sends a command to the reference, and returns its result.
func (r *ref) do(what string, with map[string]any) json.RawMessage {
	r.t.Helper()
	command, err := json.Marshal(map[string]any{"do": what, "with": with})
	must(r.t, err)
	_, err = r.in.Write(append(command, '\n'))
	must(r.t, err)
	var answer struct{ Done json.RawMessage }
	must(r.t, json.Unmarshal(r.answer(), &answer))
	return answer.Done
}

type (
	credentials struct{ Name string }
	nothing     = struct{}
	server      = hearth.Server[credentials, nothing]
)

// A node is a server of Hearth.
type node struct {
	*server
	addr string
}

// startHearth starts a server until the end of the test. The test fails if it logs a warning.
func startHearth(t *testing.T, cfg redis.Config) *node {
	t.Helper()
	b, err := redis.New(cfg)
	must(t, err)
	srv, err := hearth.New(hearth.Config[credentials, nothing]{
		Broker: b,
		Logger: slog.New(slog.NewTextHandler(failOnLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Authenticate: func(_ context.Context, r hearth.AuthRequest[credentials]) (hearth.Identity[nothing], error) {
			return hearth.Identity[nothing]{UserID: r.Credentials.Name}, nil
		},
		ValidateRooms: func(_ context.Context, _ *hearth.Client[nothing], rooms []string) ([]string, error) {
			return rooms, nil
		},
		Message: func(_ context.Context, c *hearth.Client[nothing], m hearth.Message) error {
			return c.Send(m.Event, m.Data)
		},
	})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	must(t, srv.Start(ctx))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { // ends with Shutdown
		if err := srv.Serve(ln, nil); !errors.Is(err, hearth.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		serving.Wait()
	})
	return &node{srv, ln.Addr().String()}
}

// failOnLog fails the test for each line written to it.
type failOnLog struct{ t *testing.T }

func (c failOnLog) Write(b []byte) (int, error) {
	c.t.Errorf("Hearth logged: %s", b)
	return len(b), nil
}

// A peer is a client of either server.
type peer struct {
	t    *testing.T
	name string // for messages
	id   string
	conn *websocket.Conn
}

// connect authenticates a client as user, and joins it to rooms.
func connect(t *testing.T, name, addr, user string, rooms ...string) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+addr+"/ws", nil)
	must(t, err)
	conn.SetReadLimit(4 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	p := &peer{t: t, name: name + "/" + user, conn: conn}
	p.say("authenticate", map[string]any{"name": user})
	var hello struct {
		Event string
		Data  struct{ ID, UserID string }
	}
	must(t, json.Unmarshal([]byte(p.next()), &hello))
	if p.id = hello.Data.ID; hello.Event != "connected" || hello.Data.UserID != user || p.id == "" {
		t.Fatalf("%s got %+v, want connected", p.name, hello)
	}
	if len(rooms) > 0 {
		p.say("join", map[string]any{"rooms": rooms})
	}
	p.say("echo", 1) // earlier requests are complete
	p.expect(`{"event":"echo","data":1}`)
	return p
}

func (p *peer) say(event string, data any) {
	p.t.Helper()
	b, err := json.Marshal(map[string]any{"event": event, "data": data})
	must(p.t, err)
	ctx, cancel := context.WithTimeout(p.t.Context(), timeout)
	defer cancel()
	must(p.t, p.conn.Write(ctx, websocket.MessageText, b))
}

func (p *peer) next() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), timeout)
	defer cancel()
	_, b, err := p.conn.Read(ctx)
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	return string(b)
}

// expect reads the next message, which must equal message byte for byte.
func (p *peer) expect(message string) {
	p.t.Helper()
	if got := p.next(); got != message {
		p.t.Errorf("%s got  %.200q\nwant %.200q", p.name, got, message)
	}
}

// A deployment is all servers on one Redis.
type deployment struct {
	*testing.T
	redis   *redistest.Server
	ref     *ref
	exact   *node // subscribes to the channels that its clients need
	pattern *node // subscribes to all channels, as the reference does
	emitter *emitter.Emitter
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	w := &deployment{T: t, redis: redistest.Start(t)}
	w.ref = startReference(t, w.redis.Addr)
	w.exact = startHearth(t, redis.Config{URL: w.redis.URL()})
	w.pattern = startHearth(t, redis.Config{URL: w.redis.URL(), Patterns: true})
	b, err := redis.New(redis.Config{URL: w.redis.URL()})
	must(t, err)
	w.emitter, err = emitter.New(b)
	must(t, err)
	t.Cleanup(func() {
		if err := w.emitter.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
