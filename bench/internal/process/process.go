// Package process runs programs for a benchmark and ends all of them with it.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const readyTimeout = time.Minute

// StopTimeout is the time for a process to end after SIGTERM. After it, the process is killed.
const StopTimeout = 30 * time.Second

// A Command says which program to start, and how to see that it is ready.
type Command struct {
	Args []string // the program and its arguments
	Dir  string   // its folder; empty: the current one
	Env  []string // nil: the environment of this process

	// Ready is called with each line of the output until ok is true: the text that it returns then
	// is Process.Ready. If Ready is nil, the process is ready at once.
	Ready func(line string) (string, bool)

	Stdin  io.Reader // nil: empty
	Stderr io.Writer // if not nil, receives a copy of standard error; must not block
}

// A Process is a program that runs until it is stopped. It is safe for concurrent use.
type Process struct {
	Ready  string // the text that Command.Ready returned
	Stderr *Tail  // the end of its standard error

	cmd    *exec.Cmd
	cancel context.CancelFunc
	exited chan struct{} // closed when it has ended; err is set before
	err    error
}

var (
	// ErrNotReady is wrapped by the error of Start if the process ended or did not become ready in
	// time.
	ErrNotReady = errors.New("did not become ready")

	errKilled = errors.New("had to be killed")
)

// Start starts a process and waits until it is ready. The process ends with ctx, with Stop, with
// Kill, or with this process.
func Start(ctx context.Context, c Command) (*Process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &Process{
		Stderr: &Tail{},
		cmd:    exec.CommandContext(ctx, c.Args[0], c.Args[1:]...),
		cancel: cancel,
		exited: make(chan struct{}),
	}
	ready := make(chan string, 2) // at most one line of each stream
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdin = c.Dir, c.Env, c.Stdin
	stderr := []io.Writer{p.Stderr}
	if c.Stderr != nil {
		stderr = append(stderr, c.Stderr)
	}
	if c.Ready == nil {
		ready <- ""
	} else {
		p.cmd.Stdout = &lineWatcher{pick: c.Ready, found: ready}
		stderr = append(stderr, &lineWatcher{pick: c.Ready, found: ready})
	}
	p.cmd.Stderr = io.MultiWriter(stderr...)
	p.cmd.SysProcAttr = DieWithParent()
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = StopTimeout // then SIGKILL
	if err := p.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	go func() { // ends with the process; Stop and Kill wait for it
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case p.Ready = <-ready:
		return p, nil
	case <-p.exited:
		return nil, errors.Join(fmt.Errorf("%s: %w: %v\n%s", c.Args[0], ErrNotReady, p.err, p.Stderr), p.Stop())
	case <-timeout.C:
		return nil, errors.Join(fmt.Errorf("%s: %w in %v\n%s", c.Args[0], ErrNotReady, readyTimeout, p.Stderr), p.Stop())
	}
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited returns a channel that is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Alive reports whether the process is running.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// EndsWithin reports whether the process has ended or ends by itself within d.
func (p *Process) EndsWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		return !p.Alive()
	}
}

// Err returns the error with which the process ended. It is nil while it runs, and for exit code 0.
func (p *Process) Err() error {
	if p.Alive() {
		return nil
	}
	return p.err
}

// Signal sends a signal to the process. It is an error if the process has ended.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the process to end and waits. After StopTimeout it kills the process and returns an
// error.
func (p *Process) Stop() error {
	p.cancel()
	<-p.exited
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return fmt.Errorf("%s: %w %v after it was asked to end", p.cmd.Path, errKilled, StopTimeout)
	}
	return nil
}

// Kill ends the process at once, even if it is stopped by SIGSTOP, and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // an error means that it has ended
	<-p.exited
	p.cancel()
}

// Output runs a command to its end and returns its standard output. The error contains the end of
// its standard error.
func Output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second // children of npm may hold its pipes open
	var stdout bytes.Buffer
	var stderr Tail
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", strings.Join(append([]string{name}, args...), " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// RaiseFileLimit raises the limit of open files to the hard limit, for this process and its
// children, and returns it.
func RaiseFileLimit() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("raise the limit of open files to %d: %w", limit.Max, err)
	}
	return limit.Max, nil
}

// A lineWatcher takes a process's output, line by line, and keeps only the first line that pick
// wants.
type lineWatcher struct {
	pick  func(string) (string, bool)
	found chan string // buffered; gets one line at most

	// Owned by the goroutine that copies the output.
	partial []byte
	done    bool
}

func (w *lineWatcher) Write(b []byte) (int, error) {
	written := len(b)
	for !w.done {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		w.partial = append(w.partial, line...)
		if !whole {
			w.done = len(w.partial) > 64<<10 // that is no line
			break
		}
		if picked, ok := w.pick(strings.TrimRight(string(w.partial), "\r")); ok {
			w.found <- picked
			w.done = true
		}
		w.partial, b = w.partial[:0], rest
	}
	return written, nil
}

// A Tail keeps the last 4 KiB of what is written to it. It is safe for use by several goroutines.
type Tail struct {
	mu   sync.Mutex // guards kept
	kept []byte
}

var _ io.Writer = (*Tail)(nil)

// Write never fails.
func (t *Tail) Write(b []byte) (int, error) {
	const limit = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(b), nil
}

func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}
