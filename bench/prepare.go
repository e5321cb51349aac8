package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/hearthws/hearth/bench/internal/process"
	"github.com/hearthws/hearth/bench/internal/redis"
	"github.com/hearthws/hearth/internal/test/reference"
	"github.com/hearthws/hearth/seal"
)

// An environment holds everything that a run needs, built and started.
type environment struct {
	source string // the folder of this module
	cache  string
	load   string           // the load generator
	redis  *redis.Server    // nil if no measure needs it
	key    *seal.PrivateKey // of all encrypted clients
	argv   map[string][]string
	dir    map[string]string // the folder to run a server in, if not the current one
}

// close stops what prepare started.
func (e *environment) close() {
	if e.redis != nil {
		e.redis.Stop()
	}
}

// command returns the command line that starts a server for a measure.
func (e *environment) command(server string, m measure) []string {
	argv := slices.Clone(e.argv[server])
	switch server {
	case serverHearth, serverHearthRaw:
		if m.redis {
			argv = append(argv, "-redis", "redis://127.0.0.1:"+strconv.Itoa(e.redis.Port))
		}
		if m.sealed {
			argv = append(argv, "-encryption")
		}
	case serverRef:
		argv = append(argv, strconv.Itoa(e.redis.Port)) // it needs one to start
		if m.sealed {
			argv = append(argv, "sealed")
		}
	case serverLimit:
		if m.sealed {
			argv = append(argv, "sealed")
		}
	}
	return argv
}

// prepare checks the tools, builds the programs into the cache folder, and starts Redis if a
// measure needs it. With -check, it continues without the reference or the measures with Redis if
// their tools are missing, and prints that.
func prepare(ctx context.Context, opts *options, stderr io.Writer) (*environment, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("the benchmarks need Linux (epoll, /proc), this is %s", runtime.GOOS)
	}
	if err := raiseFileLimit(*opts); err != nil {
		return nil, err
	}
	if err := checkTools(opts, stderr); err != nil {
		return nil, err
	}
	if len(opts.servers) == 0 {
		return nil, errNoServer
	}
	source, err := moduleDir(ctx)
	if err != nil {
		return nil, err
	}
	env := &environment{source: source, cache: opts.cache, argv: map[string][]string{}, dir: map[string]string{}}
	if err := os.MkdirAll(env.cache, 0o755); err != nil {
		return nil, fmt.Errorf("create the cache folder: %w", err)
	}
	fmt.Fprintf(stderr, "building into %s\n", env.cache)
	if err := env.build(ctx, opts); err != nil {
		return nil, err
	}
	if slices.Contains(opts.servers, serverRef) {
		if err := env.addReference(ctx); err != nil {
			if !opts.check || ctx.Err() != nil {
				return nil, err
			}
			skipReference(opts, stderr, err)
		}
	}
	if len(opts.servers) == 0 {
		return nil, errNoServer
	}
	if env.key, err = seal.GenerateKey(); err != nil {
		return nil, err
	}
	if opts.needRedis() {
		if env.redis, err = redis.Start(ctx, nil); err != nil {
			return nil, fmt.Errorf("start redis: %w", err)
		}
	}
	return env, nil
}

// needRedis reports whether any chosen measure or server needs Redis.
func (o *options) needRedis() bool {
	return slices.Contains(o.servers, serverRef) || slices.ContainsFunc(o.measures, func(m measure) bool { return m.redis })
}

var errNoServer = errors.New("no server is left to measure")

// skipRedis removes the measures that need Redis, and prints that.
func skipRedis(opts *options, stderr io.Writer, why error) {
	opts.measures = slices.DeleteFunc(opts.measures, func(m measure) bool {
		if m.redis {
			fmt.Fprintf(stderr, "SKIPPED %s: %v\n", m.name, why)
		}
		return m.redis
	})
}

// skipReference removes the reference, and the measures of the reference only, and prints that.
func skipReference(opts *options, stderr io.Writer, why error) {
	fmt.Fprintf(stderr, "SKIPPED %s: %v\n", serverRef, why)
	opts.servers = slices.DeleteFunc(opts.servers, func(s string) bool { return s == serverRef })
	opts.measures = slices.DeleteFunc(opts.measures, func(m measure) bool {
		empty := len(m.serversOf(opts.servers)) == 0
		if empty {
			fmt.Fprintf(stderr, "SKIPPED %s: no server is left\n", m.name)
		}
		return empty
	})
}

// A tool is a program that must be installed.
type tool struct{ name, install string }

var (
	compiler   = tool{"gcc", "apt-get install gcc libc6-dev (Debian, Ubuntu), dnf install gcc (Fedora), apk add gcc musl-dev (Alpine)"}
	goTool     = tool{"go", "https://go.dev/dl"}
	redisTool  = tool{"redis-server", "apt-get install redis-server, dnf install redis, apk add redis"}
	forTheRefs = []tool{
		{"node", "https://nodejs.org/en/download, or apt-get install nodejs"},
		{"npm", "it comes with node, or apt-get install npm"},
		redisTool,
	}
)

func checkTools(opts *options, stderr io.Writer) error {
	if err := missing(compiler, goTool); err != nil {
		return err
	}
	if slices.Contains(opts.servers, serverRef) {
		if err := missing(forTheRefs...); err != nil && opts.check {
			skipReference(opts, stderr, err)
		} else if err != nil {
			return fmt.Errorf("%w\nor leave the reference out: -servers hearth,hearth-raw,limit", err)
		}
	}
	if err := missing(redisTool); err != nil && opts.check {
		skipRedis(opts, stderr, err)
	} else if err != nil && opts.needRedis() {
		return fmt.Errorf("%w\nor leave out the measures that need it", err)
	}
	return nil
}

// missing returns an error that names the missing tools and how to install them.
func missing(tools ...tool) error {
	var errs []error
	for _, t := range tools {
		if _, err := exec.LookPath(t.name); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing; to install it: %s", t.name, t.install))
		}
	}
	return errors.Join(errs...)
}

// raiseFileLimit raises the limit on open files to the hard limit, which child processes inherit.
// It returns an error if that is too low: each side holds one file per client.
func raiseFileLimit(opts options) error {
	const spare = 100
	limit, err := process.RaiseFileLimit()
	if err != nil {
		return err
	}
	for _, m := range opts.measures {
		if need := uint64(m.size(opts.check).clients + spare); need > limit {
			return fmt.Errorf("%s needs %d open files a process, the hard limit is %d: raise it (ulimit -Hn), or leave %s out with -measures",
				m.name, need, limit, m.name)
		}
	}
	return nil
}

// moduleDir returns the folder of this module.
func moduleDir(ctx context.Context) (string, error) {
	out, err := process.Output(ctx, "", "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}")
	path, dir, found := strings.Cut(strings.TrimSpace(out), " ")
	if err == nil && (!found || path != "github.com/hearthws/hearth/bench") {
		err = fmt.Errorf("this is module %q", path)
	}
	if err != nil {
		return "", fmt.Errorf("find the benchmark's sources (run it in bench/): %w", err)
	}
	return dir, nil
}

// build compiles the load generator and the servers except the reference.
func (e *environment) build(ctx context.Context, opts *options) error {
	e.load = filepath.Join(e.cache, "load")
	if err := e.compile(ctx, "load.c", e.load); err != nil {
		return err
	}
	for _, server := range opts.servers {
		switch server {
		case serverLimit:
			binary := filepath.Join(e.cache, "limit")
			if err := e.compile(ctx, "limit.c", binary); err != nil {
				return err
			}
			e.argv[server] = []string{binary, "0"}
		case serverHearth, serverHearthRaw:
			binary := filepath.Join(e.cache, "hearth-server")
			if _, err := process.Output(ctx, e.source, "go", "build", "-o", binary, "./server"); err != nil {
				return fmt.Errorf("build Hearth's server: %w", err)
			}
			e.argv[server] = []string{binary, "-loops", fmt.Sprint(opts.loops), fmt.Sprintf("-raw=%t", server == serverHearthRaw)}
		}
	}
	return nil
}

// cFlags enable optimization. The C programs compile without warnings.
var cFlags = []string{"-O2", "-Wall", "-Wextra", "-Wno-sign-compare"}

func (e *environment) compile(ctx context.Context, source, binary string) error {
	args := append(slices.Clone(cFlags), "-o", binary, filepath.Join(e.source, "c", source))
	if _, err := process.Output(ctx, "", compiler.name, args...); err != nil {
		return fmt.Errorf("compile %s: %w", source, err)
	}
	return nil
}

// addReference installs the reference, once per version of its lock file.
func (e *environment) addReference(ctx context.Context) error {
	dir := filepath.Join(e.cache, "reference")
	if err := e.installReference(ctx, dir); err != nil {
		return fmt.Errorf("prepare the reference: %w", err)
	}
	e.argv[serverRef] = []string{filepath.Join(dir, "node_modules", ".bin", "bun"), "server.mjs"}
	e.dir[serverRef] = dir // it writes log files to the current folder
	return nil
}

// installReference makes dir a folder in which server.mjs runs.
func (e *environment) installReference(ctx context.Context, dir string) error {
	pins := filepath.Join(e.source, "reference")
	installed, err := reference.Install(ctx, pins, e.cache)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(filepath.Join(pins, "server.mjs"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "server.mjs"), program, 0o644); err != nil {
		return err
	}
	return installed.Link(dir)
}

// serverReady returns the address in the line that every server of the benchmark prints once it
// listens.
func serverReady(line string) (string, bool) { return strings.CutPrefix(line, "READY ") }
