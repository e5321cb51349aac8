package child_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthws/hearth/internal/test/child"
)

// parentEnv makes this test binary a parent that starts a child, prints its id, and waits to be
// killed.
const parentEnv = "HEARTH_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	cmd := exec.Command("cat")
	// The child would keep these open for as long as it lives.
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	p, err := child.Start(cmd, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(cmd.Process.Pid)
	_ = p.Wait()
}

// TestParentIsKilled checks that the child ends with its parent, although the parent could not stop
// it.
func TestParentIsKilled(t *testing.T) {
	t.Parallel()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"=1")
	in, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	output := bufio.NewReader(out)
	if line, err := output.ReadString('\n'); err != nil || strings.TrimSpace(line) == "" {
		t.Errorf("the parent printed %q, %v", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// This also ends the child.
	late := time.AfterFunc(time.Minute, func() { in.Close() })
	// The output ends when the child has closed its side, too.
	if rest, err := output.ReadString('\n'); rest != "" || !late.Stop() {
		t.Errorf("the child is still running: %q, %v", rest, err)
	}
	in.Close()
	_ = parent.Wait()
}

// TestThreadsEnd checks that a child continues to run when other threads end.
func TestThreadsEnd(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	var started sync.WaitGroup
	started.Go(func() {
		runtime.LockOSThread() // and never unlocks it: the thread ends with the goroutine
		p, err := child.Start(cmd, func() {
			line, _ := bufio.NewReader(out).ReadString('\n')
			said <- line
		})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() {
			in.Close()
			if err := p.Wait(); err != nil {
				t.Error(err)
			}
		})
	})
	started.Wait()
	for range 50 {
		var ends sync.WaitGroup
		ends.Go(runtime.LockOSThread)
		ends.Wait()
	}
	if _, err := fmt.Fprintln(in, "still here"); err != nil {
		t.Fatal(err)
	}
	if got := <-said; got != "still here\n" {
		t.Errorf("the child printed %q", got)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	if p, err := child.Start(exec.Command("/nowhere/at/all"), nil); p != nil || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("started: %v", err)
	}
}
