package workpool_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/workpool"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// task is a function as a Task.
type task func()

func (t task) Run() { t() }

// TestGrows checks that tasks which block delay others by a few milliseconds at most.
func TestGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const tasks = 500
		var p workpool.Pool
		var running atomic.Int32
		release := make(chan struct{})
		for range tasks {
			p.Submit(task(func() {
				running.Add(1)
				<-release
			}))
		}
		time.Sleep(50 * time.Millisecond)
		if n := running.Load(); n != tasks {
			t.Errorf("%d of %d tasks run", n, tasks)
		}
		close(release)
		p.Wait()
	})
}

// TestExit checks that a task which ends its goroutine is run again on another one, and that the
// pool goes on.
func TestExit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p workpool.Pool
		runs, others := 0, 0
		p.Submit(task(func() {
			if runs++; runs < 4 {
				runtime.Goexit()
			}
		}))
		p.Submit(task(func() { others++ }))
		time.Sleep(time.Second)
		p.Wait()
		if runs != 4 || others != 1 {
			t.Errorf("%d runs, want 4; %d runs of the other task, want 1", runs, others)
		}
	})
}

// TestRunDeferred checks that deferred tasks wait for RunDeferred, and that it waits for them.
func TestRunDeferred(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p workpool.Pool
		var runs atomic.Int32
		y := workpool.NewYielder()
		for range 5 {
			p.SubmitDeferred(task(func() { runs.Add(1) }))
		}
		time.Sleep(time.Second)
		if n := runs.Load(); n != 0 {
			t.Fatalf("%d deferred tasks have run before RunDeferred", n)
		}
		p.RunDeferred(y)
		if n := runs.Load(); n != 5 {
			t.Errorf("%d of 5 deferred tasks have run when RunDeferred returns", n)
		}
		p.Wait()
	})
}

// TestRunDeferredBlocked checks that tasks which block delay an event loop until the check of the
// pool, that the pool notices this in the second turn at the latest, and that the loop then does
// not wait.
func TestRunDeferredBlocked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p workpool.Pool
		y := workpool.NewYielder()
		release := make(chan struct{})
		var waits []time.Duration
		for range 10 {
			p.SubmitDeferred(task(func() { <-release }))
			begin := time.Now()
			p.RunDeferred(y)
			waits = append(waits, time.Since(begin))
		}
		for turn, d := range waits {
			if d > 2*time.Millisecond || turn >= 2 && d != 0 {
				t.Errorf("turn %d of %v waits too long", turn, waits)
			}
		}
		close(release)
		p.Wait()
	})
}

// TestKick checks that tasks whose event loop has ended are run after Kick.
func TestKick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p workpool.Pool
		p.Kick() // nothing to do
		runs := 0
		p.SubmitDeferred(task(func() { runs++ }))
		p.Kick()
		p.Wait()
		if runs != 1 {
			t.Errorf("%d runs, want 1", runs)
		}
	})
}
