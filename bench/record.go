package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A recorder writes one JSON object a line: first an about, then the results, last a line for each row of
// the table.
type recorder struct{ w io.Writer }

func newRecorder(w io.Writer) *recorder { return &recorder{w: w} }

func (r *recorder) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a result: %w", err)
	}
	if _, err := r.w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write a result: %w", err)
	}
	return nil
}

// An about says what was run, where and when: a figure without it is a rumour.
type about struct {
	Kind     string            `json:"kind"` // "about"
	Date     time.Time         `json:"date"`
	Command  []string          `json:"command"`
	Check    bool              `json:"check"`
	Rounds   int               `json:"rounds"`
	Turns    map[string]int    `json:"turns,omitempty"` // of a server in a round, by measure, where it takes several
	Loops    int               `json:"loops"`
	Commit   string            `json:"commit"`
	Modified bool              `json:"modified"` // the work tree differs from the commit
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
}

type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
}

func describe(ctx context.Context, env *environment, opts options, args []string) about {
	a := about{
		Kind: "about", Date: time.Now().UTC().Truncate(time.Second), Command: append([]string{"bench"}, args...),
		Check: opts.check, Rounds: opts.rounds, Turns: turnsOf(opts), Loops: opts.loops,
		Machine:  describeMachine(),
		Versions: map[string]string{"go": runtime.Version()},
	}
	a.Commit = firstLine(ctx, env.source, "git", "rev-parse", "HEAD")
	a.Modified = firstLine(ctx, env.source, "git", "status", "--porcelain", "--untracked-files=no") != ""
	a.Versions["gcc"] = firstLine(ctx, "", compiler.name, "-dumpfullversion")
	if dir := env.dir[serverRef]; dir != "" {
		a.Versions["bun"] = firstLine(ctx, dir, filepath.Join(dir, "node_modules", ".bin", "bun"), "--version")
		a.Versions["@venizia/ignis-helpers"] = packageVersion(filepath.Join(dir, "node_modules", "@venizia", "ignis-helpers"))
	}
	if env.redis != nil {
		a.Versions["redis"] = firstLine(ctx, "", "redis-server", "--version")
	}
	return a
}

func turnsOf(opts options) map[string]int {
	turns := map[string]int{}
	for _, m := range opts.measures {
		if n := m.size(opts.check).turns; n > 0 {
			turns[m.name] = n
		}
	}
	return turns
}

// turnsLine says which measures let their servers take turns; nothing where none does.
func (a about) turnsLine() string {
	var parts []string
	for _, name := range measureNames() {
		if n := a.Turns[name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, n))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "turns of each server in a round: " + strings.Join(parts, ", ") + "\n"
}

func describeMachine() machine {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("unknown")
	}
	return machine{
		CPU:    procValue("/proc/cpuinfo", "model name"),
		Cores:  runtime.NumCPU(),
		Memory: procValue("/proc/meminfo", "MemTotal"),
		Kernel: strings.TrimSpace(string(kernel)),
	}
}

// procValue finds the first "key : value" line of a file.
func procValue(path, key string) string {
	file, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, value, found := strings.Cut(lines.Text(), ":")
		if found && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// packageVersion reads the version of an installed npm package.
func packageVersion(dir string) string {
	var manifest struct {
		Version string `json:"version"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil || json.Unmarshal(data, &manifest) != nil {
		return "unknown"
	}
	return manifest.Version
}

// firstLine runs a command for what it says of itself; what cannot be had is "unknown".
func firstLine(ctx context.Context, dir, name string, args ...string) string {
	out, err := output(ctx, dir, name, args...)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return line
}
