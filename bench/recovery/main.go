// Command recovery measures what clients miss when connections, servers and nodes fail: clients
// connect again, and every message that was published is accounted for. Run it in bench/ with
// `go run ./recovery`; docs/benchmarks.md explains the figures.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/bench/internal/machine"
	"github.com/hearthws/hearth/bench/internal/process"
)

const (
	exitOK    = 0
	exitFail  = 1 // a target was missed, or a server could not be run
	exitUsage = 2
)

func main() { os.Exit(process.Main(run)) }

// A scale says how a measure changes the usual load.
type scale func(size *load, check bool)

// A measure is one or several rows of the table for each server.
type measure struct {
	name    string
	about   string
	clients []int // a row for each
	redis   bool  // it needs redis-server
	servers []string
	scale   scale
	run     func(context.Context, *lab, entrant, load) (result, error)
}

// measures returns all measures in their order.
func measures() []measure {
	return []measure{
		{"jitter", "clients are cut every 17 s and stay away for 2 s", []int{300, 3000}, false,
			[]string{"hearth", "hearth-tickets", "hearth-plain", "ref", "centrifugo"}, func(*load, bool) {}, jitter},
		{"rolling", "three nodes are restarted, one after the other", []int{900}, true,
			[]string{"hearth", "hearth-tickets", "hearth-plain"}, scaleRolling, rolling},
		{"avalanche", "one of three nodes is killed", []int{10_000}, true,
			[]string{"hearth", "hearth-tickets", "hearth-plain"}, scaleAvalanche, avalanche},
		{"frozen", "one of three nodes is stopped", []int{300}, true,
			[]string{"hearth", "hearth-tickets"}, scaleFrozen, frozen},
		{"cost", "messages are published to a room with history, and recovered", []int{1}, true,
			[]string{"hearth", "centrifugo"}, scaleCost, cost},
	}
}

func scaleCost(size *load, check bool) {
	size.operations = 200_000
	if check {
		size.operations = 2000
	}
}

func scaleRolling(size *load, check bool) {
	size.before, size.drain = 2*time.Second, 3*time.Second
	size.length = 30 * time.Second
	if check {
		size.before, size.drain, size.length = 200*time.Millisecond, 200*time.Millisecond, 4*time.Second
	}
}

// scaleAvalanche keeps the number of messages low, since the nodes and the clients share a machine.
func scaleAvalanche(size *load, check bool) {
	size.each, size.rate, size.before, size.length = 1, 0.5, 5*time.Second, 30*time.Second
	if check {
		size.rate, size.before, size.length = 5, 500*time.Millisecond, 3*time.Second
	}
}

func scaleFrozen(size *load, check bool) {
	size.before, size.heartbeat, size.length = 3*time.Second, 6*time.Second, 20*time.Second
	if check { // the timeout is ten seconds
		size.before, size.heartbeat, size.length = time.Second, 600*time.Millisecond, 13*time.Second
	}
}

const usage = `usage: go run ./recovery [options]

Clients join rooms in which messages are published, lose their connections in a way that depends on
the measure, and connect again. The table shows what they have received of what was published. All
servers run on this machine, on free ports of 127.0.0.1.

The exit code is 0 if all targets are met, 1 if one is missed or a server failed, 2 for a wrong
option. docs/benchmarks.md explains the figures.

  go run ./recovery                                   everything
  go run ./recovery -measures jitter -servers hearth  some of it
  go run ./recovery -measures jitter -clients 1000    with another number of clients
  go run ./recovery -check                            a tiny run: does everything work?

Options:
`

// options are the options of the command line.
type options struct {
	measures []measure
	servers  []entrant
	cache    string
	length   time.Duration
	json     bool
	check    bool
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("recovery", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() {
		fmt.Fprint(stderr, usage)
		set.PrintDefaults()
		for _, m := range measures() {
			fmt.Fprintf(stderr, "%-10s %s: %s\n", m.name, strings.Join(m.servers, ","), m.about)
		}
	}
	var measureNames, serverNames []string
	for _, m := range measures() {
		measureNames = append(measureNames, m.name)
	}
	for _, e := range entrants() {
		serverNames = append(serverNames, e.name)
	}
	measureList := set.String("measures", strings.Join(measureNames, ","), "what to measure, comma-separated")
	serverList := set.String("servers", strings.Join(serverNames, ","), "what to measure it of, comma-separated")
	clients := set.Int("clients", 0, "number of clients (default: that of the measure)")
	set.DurationVar(&o.length, "duration", time.Minute, "how long messages are published, where the measure does not say")
	set.StringVar(&o.cache, "cache", "", "folder for what is installed (default: hearth-bench in the user's cache folder)")
	set.BoolVar(&o.json, "json", false, "print one JSON object a line instead of the table")
	set.BoolVar(&o.check, "check", false, "a tiny run of Hearth alone that checks that everything works: its times mean nothing")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if *clients < 0 || *clients > 20_000 {
		return o, fmt.Errorf("-clients %d: 1 to 20,000", *clients)
	}
	if o.length < time.Second || o.length > 10*time.Minute {
		return o, fmt.Errorf("-duration %v: 1s to 10m", o.length)
	}
	return o, o.choose(*measureList, *serverList, *clients)
}

// choose sets the lists of measures and servers.
func (o *options) choose(measureList, serverList string, clients int) error {
	wantedMeasures, wantedServers := strings.Split(measureList, ","), strings.Split(serverList, ",")
	for _, m := range measures() {
		if slices.Contains(wantedMeasures, m.name) {
			if clients > 0 {
				m.clients = []int{clients}
			}
			o.measures = append(o.measures, m)
			wantedMeasures = slices.DeleteFunc(wantedMeasures, func(name string) bool { return name == m.name })
		}
	}
	for _, e := range entrants() {
		if slices.Contains(wantedServers, e.name) {
			if !o.check || strings.HasPrefix(e.name, "hearth") {
				o.servers = append(o.servers, e)
			}
			wantedServers = slices.DeleteFunc(wantedServers, func(name string) bool { return name == e.name })
		}
	}
	if len(wantedMeasures) > 0 {
		return fmt.Errorf("unknown measure %q", wantedMeasures[0])
	}
	if len(wantedServers) > 0 {
		return fmt.Errorf("unknown server %q", wantedServers[0])
	}
	if len(o.servers) == 0 {
		return errors.New("no server to measure")
	}
	return nil
}

// size returns the load of a measure.
func (o options) size(m measure, clients int) load {
	size := load{clients: clients, rooms: 10, each: 2, rate: 2, length: o.length, every: 17 * time.Second, away: 2 * time.Second}
	if o.check {
		size.clients, size.length, size.rate = 30, 3*time.Second, 10
		size.every, size.away = 800*time.Millisecond, 200*time.Millisecond
	}
	m.scale(&size, o.check)
	return size
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "recovery:", err)
		return exitUsage
	}
	if err := measureAll(ctx, o, args, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "recovery:", err)
		return exitFail
	}
	return exitOK
}

// measureAll runs the chosen measures and prints the results.
func measureAll(ctx context.Context, o options, args []string, stdout, stderr io.Writer) error {
	l, err := o.prepare(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	print := printer{out: stdout, json: o.json, report: newReport(stdout)}
	print.about(describe(ctx, l, args))
	var errs []error
	for _, m := range o.measures {
		if _, err := exec.LookPath("redis-server"); m.redis && err != nil {
			fmt.Fprintf(stderr, "SKIPPED %s: redis-server not found\n", m.name)
			continue
		}
		counts := m.clients
		if o.check {
			counts = counts[:1]
		}
		for _, clients := range counts {
			for _, e := range o.servers {
				if !slices.Contains(m.servers, e.name) {
					continue
				}
				fmt.Fprintf(stderr, "%s, %s, %d clients\n", m.name, e.name, o.size(m, clients).clients)
				r, err := m.attempt(ctx, l, e, o.size(m, clients))
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("%s, %s: %w", m.name, e.name, err))
					continue
				}
				print.result(r)
			}
		}
	}
	if err := print.end(); err != nil {
		errs = append(errs, err)
	}
	if print.report.missed > 0 {
		errs = append(errs, fmt.Errorf("%d targets were missed", print.report.missed))
	}
	return errors.Join(errs...)
}

// attempt runs a measure of one server.
func (m measure) attempt(ctx context.Context, l *lab, e entrant, size load) (result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, size.length+4*time.Minute, errors.New("the measure took too long"))
	defer cancel()
	defer l.stop()
	if err := e.prepare(ctx, l); err != nil {
		return result{}, err
	}
	r, err := m.run(ctx, l, e, size)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	r.Measure, r.Server = m.name, e.name
	r.BackP50, r.BackP99 = percentile(r.returned, 50), percentile(r.returned, 99)
	return r, err
}

// prepare checks the system and makes the lab.
func (o options) prepare(ctx context.Context) (*lab, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("the benchmarks need Linux, this is %s", runtime.GOOS)
	}
	limit, err := process.RaiseFileLimit()
	if err != nil {
		return nil, err
	}
	for _, m := range o.measures {
		// In jitter, a client that was silenced has two connections. The others are spread over nodes.
		need := uint64(slices.Max(m.clients)) + 500
		if !m.redis {
			need *= 2
		}
		if need > limit && !o.check {
			return nil, fmt.Errorf("%s needs %d open files per process, the hard limit is %d: raise it (ulimit -Hn)", m.name, need, limit)
		}
	}
	source, err := process.Output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, fmt.Errorf("find the benchmark's sources (run it in bench/): %w", err)
	}
	l := &lab{source: strings.TrimSpace(source), cache: o.cache}
	if l.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find a cache folder (or use -cache): %w", err)
		}
		l.cache = filepath.Join(dir, "hearth-bench")
	}
	if err := os.MkdirAll(l.cache, 0o755); err != nil {
		return nil, fmt.Errorf("create the cache folder: %w", err)
	}
	l.dir, err = os.MkdirTemp("", "hearth-recovery-")
	return l, err
}

// An about describes a run.
type about struct {
	Kind    string          `json:"kind"` // "about"
	Date    time.Time       `json:"date"`
	Command []string        `json:"command"`
	Commit  string          `json:"commit"`
	Load    string          `json:"load"` // the machine's load averages at the start
	Machine machine.Machine `json:"machine"`
	Go      string          `json:"go"`
}

func describe(ctx context.Context, l *lab, args []string) about {
	a := about{Kind: "about", Date: time.Now().UTC().Truncate(time.Second), Command: append([]string{"recovery"}, args...),
		Load: "unknown", Machine: machine.Describe(), Go: runtime.Version()}
	commit, modified := machine.Commit(ctx, l.source)
	if a.Commit = commit; modified {
		a.Commit += ", modified"
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		a.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	return a
}

// A printer prints the table at the end, or JSON as the results come in.
type printer struct {
	out    io.Writer
	json   bool
	report *report
}

func (p *printer) line(v any) {
	if b, err := json.Marshal(v); err == nil {
		fmt.Fprintf(p.out, "%s\n", b)
	}
}

func (p *printer) about(a about) {
	if p.json {
		p.line(a)
		return
	}
	fmt.Fprintf(p.out, "hearth %s, %s; %d cores of %s, Linux %s; load %s\n\n", a.Commit, a.Go, a.Machine.Cores, a.Machine.CPU,
		a.Machine.Kernel, a.Load)
}

func (p *printer) result(r result) {
	p.report.add(r)
	if p.json {
		p.line(r)
	}
}

func (p *printer) end() error {
	if p.json {
		return nil
	}
	return p.report.print(p.out)
}
