// Package child starts processes for tests that do not outlive them, even if the test is killed.
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

// Start starts cmd. Then it calls read, unless that is nil, on a goroutine of its own: it is for the pipes that cmd has, until they
// end, and is waited for before the process is. Where the kernel can (Linux), the child is killed when this process ends.
func Start(cmd *exec.Cmd, read func()) (*Process, error) {
	p := &Process{done: make(chan struct{})}
	started := make(chan error, 1)
	// Ends with the child, which Wait waits for. The kernel looks at the thread that has started a child, not at the
	// process: so this thread is nobody else's, and lives as long as the child.
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
