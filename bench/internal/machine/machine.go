// Package machine describes where a benchmark ran.
package machine

import (
	"bufio"
	"context"
	"os"
	"runtime"
	"strings"

	"github.com/hearthws/hearth/bench/internal/process"
)

// A Machine describes what figures depend on. An unknown value is "unknown".
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
}

// Describe describes this machine.
func Describe() Machine {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("unknown")
	}
	return Machine{
		CPU:    procValue("/proc/cpuinfo", "model name"),
		Cores:  runtime.NumCPU(),
		Memory: procValue("/proc/meminfo", "MemTotal"),
		Kernel: strings.TrimSpace(string(kernel)),
	}
}

// Commit returns the commit that is checked out in dir, and whether files differ from it.
func Commit(ctx context.Context, dir string) (commit string, modified bool) {
	commit = FirstLine(ctx, dir, "git", "rev-parse", "HEAD")
	return commit, FirstLine(ctx, dir, "git", "status", "--porcelain", "--untracked-files=no") != ""
}

// procValue returns the value of the first "key : value" line of a file.
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

// FirstLine runs a command and returns the first line of its output, or "unknown".
func FirstLine(ctx context.Context, dir, name string, args ...string) string {
	out, err := process.Output(ctx, dir, name, args...)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return line
}
