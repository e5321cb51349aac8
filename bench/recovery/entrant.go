package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hearthws/hearth/bench/internal/process"
	"github.com/hearthws/hearth/bench/internal/redis"
	"github.com/hearthws/hearth/internal/test/reference"
)

// An entrant is a kind of server that is measured.
type entrant struct {
	name     string
	dialect  dialect
	recovers bool // it promises that clients miss nothing
	tickets  bool // clients resume their sessions
	prepare  func(context.Context, *lab) error
	start    func(context.Context, *lab, nodeOptions) (*node, error)
	publish  func(context.Context, *lab, *node) (publisher, error) // to a single node
}

// entrants returns all entrants in their order.
func entrants() []entrant {
	hearth := func(set func(*nodeOptions)) func(context.Context, *lab, nodeOptions) (*node, error) {
		return func(ctx context.Context, l *lab, o nodeOptions) (*node, error) {
			set(&o)
			return startHearth(ctx, l, o)
		}
	}
	control := func(ctx context.Context, _ *lab, n *node) (publisher, error) { return newController(ctx, n.addr) }
	return []entrant{
		{"hearth", hearthDialect, true, false, buildHearth, hearth(func(o *nodeOptions) { o.history = historySize }), control},
		{"hearth-tickets", hearthDialect, true, true, buildHearth,
			hearth(func(o *nodeOptions) { o.history, o.resumeKey = historySize, resumeKey }), control},
		{"hearth-plain", hearthDialect, false, false, buildHearth, hearth(func(*nodeOptions) {}), control},
		{"ref", hearthDialect, false, false, installReference, startReference, control},
		{"centrifugo", centrifugoDialect, false, false, buildCentrifugo, startCentrifugo, newHTTPPublisher},
	}
}

const (
	historySize = 1000 // messages that a server with history keeps of a room
	resumeKey   = "the key for the tickets of a benchmark"
)

// nodeOptions are the settings of a node. Zero fields are the defaults of the server.
type nodeOptions struct {
	listen    string
	redis     string // URL
	history   int
	resumeKey string
	heartbeat time.Duration // a third of it is the interval at which clients send heartbeats
	drain     time.Duration
}

// A node is a running server.
type node struct {
	process *process.Process
	addr    string
}

// authenticated returns how often the node has called its application to authenticate a client.
func (n *node) authenticated(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+"/authenticated", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 100))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// cpu returns the processor time that a process has used, in steps of 10 ms.
func cpu(p *process.Process) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	// proc(5): the second field, the name of the program, is in parentheses; user and system time,
	// in hundredths of a second, are the 14th and the 15th.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", p.PID(), len(fields))
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// A lab builds and starts what a measure needs, and stops what it has started. It is for one
// goroutine.
type lab struct {
	source string // the folder of the module bench
	cache  string // the folder for the reference
	dir    string // a folder of this run

	hearth     string // the binary
	centrifugo string // the binary
	reference  string // the folder
	stops      []func()
}

// stop stops the programs of the entrant, the last one first.
func (l *lab) stop() {
	for len(l.stops) > 0 {
		last := len(l.stops) - 1
		l.stops[last]()
		l.stops = l.stops[:last]
	}
}

// launch starts a server that prints its address.
func (l *lab) launch(ctx context.Context, dir string, argv ...string) (*node, error) {
	p, err := process.Start(ctx, process.Command{Args: argv, Dir: dir, Ready: func(line string) (string, bool) {
		return strings.CutPrefix(line, "READY ")
	}})
	if err != nil {
		return nil, err
	}
	l.stops = append(l.stops, p.Kill)
	return &node{process: p, addr: p.Ready}, nil
}

// buildHearth builds bench/server of this repository.
func buildHearth(ctx context.Context, l *lab) error {
	if l.hearth != "" {
		return nil
	}
	binary := filepath.Join(l.dir, "server")
	if _, err := process.Output(ctx, l.source, "go", "build", "-o", binary, "./server"); err != nil {
		return fmt.Errorf("build Hearth's server: %w", err)
	}
	l.hearth = binary
	return nil
}

// startHearth starts bench/server.
func startHearth(ctx context.Context, l *lab, o nodeOptions) (*node, error) {
	argv := []string{l.hearth, "-raw"}
	for name, value := range map[string]string{"-listen": o.listen, "-redis": o.redis, "-resume-key": o.resumeKey} {
		if value != "" {
			argv = append(argv, name, value)
		}
	}
	return l.launch(ctx, "", append(argv, "-history", strconv.Itoa(o.history), "-heartbeat", o.heartbeat.String(),
		"-drain", o.drain.String())...)
}

// installReference installs the reference, once per version of its lock file.
func installReference(ctx context.Context, l *lab) error {
	for _, tool := range []string{"node", "npm", "redis-server"} {
		if _, err := exec.LookPath(tool); err != nil {
			return errors.New("the reference needs " + tool)
		}
	}
	pins := filepath.Join(l.source, "reference")
	installed, err := reference.Install(ctx, pins, l.cache)
	if err != nil {
		return err
	}
	dir := filepath.Join(l.cache, "reference-recovery")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	program, err := os.ReadFile(filepath.Join(pins, "server.mjs"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "server.mjs"), program, 0o644); err != nil {
		return err
	}
	l.reference = dir
	return installed.Link(dir)
}

// startReference starts the reference, with the Redis that it needs.
func startReference(ctx context.Context, l *lab, _ nodeOptions) (*node, error) {
	r, err := redis.Start(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("start redis: %w", err)
	}
	l.stops = append(l.stops, r.Stop)
	return l.launch(ctx, l.reference, filepath.Join(l.reference, "node_modules", ".bin", "bun"), "server.mjs", strconv.Itoa(r.Port))
}
