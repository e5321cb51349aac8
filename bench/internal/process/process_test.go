package process

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// address returns the address in the line with which the processes of these tests are ready.
func address(line string) (string, bool) { return strings.CutPrefix(line, "READY ") }

func TestLineWatcherFindsTheLineInAnyPieces(t *testing.T) {
	t.Parallel()
	text := "starting\nREADY 127.0.0.1:1234\r\nREADY 127.0.0.1:99\n"
	for size := 1; size <= len(text); size++ {
		w := &lineWatcher{pick: address, found: make(chan string, 1)}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if wrote, err := w.Write([]byte(rest[:n])); wrote != n || err != nil {
				t.Fatalf("Write: %d, %v", wrote, err)
			}
			rest = rest[n:]
		}
		select {
		case got := <-w.found:
			if got != "127.0.0.1:1234" {
				t.Errorf("pieces of %d: got %q", size, got)
			}
		default:
			t.Errorf("pieces of %d: not found", size)
		}
	}
}

func TestLineWatcherKeepsNoEndlessLine(t *testing.T) {
	t.Parallel()
	w := &lineWatcher{pick: address, found: make(chan string, 1)}
	for range 1000 {
		if _, err := w.Write([]byte(strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.partial) > 100_000 {
		t.Errorf("keeps %d bytes", len(w.partial))
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var kept Tail
	for range 1000 {
		if _, err := kept.Write([]byte("some complaint\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kept.Write([]byte("the last word\n")); err != nil {
		t.Fatal(err)
	}
	if got := kept.String(); len(got) > 4<<10 || !strings.HasSuffix(got, "the last word") {
		t.Errorf("kept %d bytes, the last %q", len(got), got[max(0, len(got)-30):])
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell here")
	}
	p, err := Start(t.Context(), Command{Ready: address, Args: []string{shell, "-c", "echo hello; echo READY 127.0.0.1:7; exec sleep 60"}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Ready != "127.0.0.1:7" || !p.Alive() {
		t.Errorf("ready %q, alive %t", p.Ready, p.Alive())
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if p.Alive() {
		t.Error("alive after stop")
	}
}

func TestStartThatEnds(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell here")
	}
	_, err = Start(t.Context(), Command{Ready: address, Args: []string{shell, "-c", "echo the port is taken >&2; exit 3"}})
	if !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "the port is taken") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v: want ErrNotReady with what the process said", err)
	}
}

func TestStartThatIsNotThere(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), Command{Ready: address, Args: []string{"/no/such/program"}}); err == nil {
		t.Error("no error")
	}
}

func TestKillEndsAStoppedProcess(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell here")
	}
	var copied Tail
	p, err := Start(t.Context(), Command{Ready: address, Stderr: &copied, Args: []string{shell, "-c", "echo READY here >&2; exec sleep 60"}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Ready != "here" || copied.String() != "READY here" {
		t.Errorf("ready %q, copied %q", p.Ready, copied.String())
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if p.Alive() || p.Err() == nil {
		t.Errorf("alive %t, error %v", p.Alive(), p.Err())
	}
}
