package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/hearthws/hearth/bench/internal/machine"
)

// A recorder writes one JSON object per line: an about, the results, and a line for each row of the
// table.
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

// An about describes the run: date, command, commit, machine. A figure is meaningless without it.
type about struct {
	Kind     string            `json:"kind"` // "about"
	Date     time.Time         `json:"date"`
	Command  []string          `json:"command"`
	Check    bool              `json:"check"`
	Rounds   int               `json:"rounds"`
	Turns    map[string]int    `json:"turns,omitempty"` // of a server in a round, by measure
	Loops    int               `json:"loops"`
	Commit   string            `json:"commit"`
	Modified bool              `json:"modified"` // the work tree differs from the commit
	Machine  machine.Machine   `json:"machine"`
	Versions map[string]string `json:"versions"`
}

func describe(ctx context.Context, env *environment, opts options, args []string) about {
	a := about{
		Kind: "about", Date: time.Now().UTC().Truncate(time.Second), Command: append([]string{"bench"}, args...),
		Check: opts.check, Rounds: opts.rounds, Turns: turnsPerServer(opts), Loops: opts.loops,
		Machine:  machine.Describe(),
		Versions: map[string]string{"go": runtime.Version()},
	}
	a.Commit, a.Modified = machine.Commit(ctx, env.source)
	a.Versions["gcc"] = machine.FirstLine(ctx, "", compiler.name, "-dumpfullversion")
	if dir := env.dir[serverRef]; dir != "" {
		a.Versions["bun"] = machine.FirstLine(ctx, dir, filepath.Join(dir, "node_modules", ".bin", "bun"), "--version")
		a.Versions["@venizia/ignis-helpers"] = packageVersion(filepath.Join(dir, "node_modules", "@venizia", "ignis-helpers"))
	}
	if env.redis != nil {
		a.Versions["redis"] = machine.FirstLine(ctx, "", "redis-server", "--version")
	}
	return a
}

func turnsPerServer(opts options) map[string]int {
	turns := map[string]int{}
	for _, m := range opts.measures {
		if n := m.size(opts.check).turns; n > 0 {
			turns[m.name] = n
		}
	}
	return turns
}

// turnsLine names the measures whose servers take turns. It returns an empty text if there are
// none.
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

// packageVersion returns the version of an installed npm package.
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
