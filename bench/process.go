package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// A process is a program that runs beside us until it is stopped.
type process struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	ready  string        // what it said when it was ready
	stderr *tail         // the last that it said on standard error
	exited chan struct{} // closed when it has ended; err is set before
	err    error
}

var (
	errNotReady   = errors.New("did not get ready")
	errWouldNotGo = errors.New("had to be killed")
)

// startProcess starts argv in dir and waits until a line of its standard output is one that isReady picks out.
// The process ends with ctx, with stop, or with us.
func startProcess(ctx context.Context, argv []string, dir string, isReady func(line string) (string, bool)) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{
		cmd:    exec.CommandContext(ctx, argv[0], argv[1:]...),
		cancel: cancel,
		stderr: &tail{},
		exited: make(chan struct{}),
	}
	lines := &lineWatcher{pick: isReady, found: make(chan string, 1)}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, lines, p.stderr
	p.cmd.SysProcAttr = dieWithParent()
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = stopTimeout // then SIGKILL
	if err := p.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	go func() { // ends with the process; stop waits for it
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case p.ready = <-lines.found:
		return p, nil
	case <-p.exited:
		return nil, errors.Join(fmt.Errorf("%s: %w: %v\n%s", argv[0], errNotReady, p.err, p.stderr), p.stop())
	case <-timeout.C:
		return nil, errors.Join(fmt.Errorf("%s: %w in %v\n%s", argv[0], errNotReady, readyTimeout, p.stderr), p.stop())
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// alive says whether the process is still there.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// endsWithin says whether the process has ended, or does so by itself before d is over.
func (p *process) endsWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		return !p.alive()
	}
}

// stop asks the process to end, waits, and kills it if it does not listen. It reports errWouldNotGo then.
func (p *process) stop() error {
	p.cancel()
	<-p.exited
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return fmt.Errorf("%s: %w %v after it was asked to end", p.cmd.Path, errWouldNotGo, stopTimeout)
	}
	return nil
}

// serverReady picks out the address that every server of the benchmark says when it listens.
func serverReady(line string) (string, bool) { return strings.CutPrefix(line, "READY ") }

// redisReady picks out the line with which redis-server says that it listens.
func redisReady(line string) (string, bool) {
	return line, strings.Contains(strings.ToLower(line), "ready to accept connections")
}

// A lineWatcher takes a process's output, line by line, and keeps none but the first that pick wants.
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

// A tail keeps the last few KiB of what is written to it. Safe for use by several goroutines.
type tail struct {
	mu   sync.Mutex // guards kept
	kept []byte
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	const limit = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}
