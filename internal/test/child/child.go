// Package child starts processes for tests. The processes end with the test, even if the test is
// killed.
package child

import (
	"os/exec"
	"runtime"
)

// A Process is a child that has been started.
type Process struct {
	done chan struct{} // closed when it has ended
	err  error         // of cmd.Wait; set before done is closed
}

// Start starts cmd. If read is not nil, it calls read on a new goroutine, which reads the pipes of
// cmd until they end. Wait waits for read before it waits for the process. On Linux, the kernel
// kills the child when this process ends.
func Start(cmd *exec.Cmd, read func()) (*Process, error) {
	p := &Process{done: make(chan struct{})}
	started := make(chan error, 1)
	// Ends with the child, which Wait waits for. The kernel kills the child when the thread that
	// started it ends, not the process. Therefore this goroutine keeps its thread for as long as
	// the child lives.
	go func() {
		defer close(p.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		dieWithParent(cmd)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if read != nil {
			read()
		}
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until the child has ended, and returns what exec.Cmd.Wait does.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}
