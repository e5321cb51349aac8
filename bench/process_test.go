package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestLineWatcherFindsTheLineInAnyPieces(t *testing.T) {
	t.Parallel()
	text := "starting\nREADY 127.0.0.1:1234\r\nREADY 127.0.0.1:99\n"
	for size := 1; size <= len(text); size++ {
		w := &lineWatcher{pick: serverReady, found: make(chan string, 1)}
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
	w := &lineWatcher{pick: serverReady, found: make(chan string, 1)}
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
	var kept tail
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

func TestStartProcess(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell here")
	}
	p, err := startProcess(t.Context(), []string{shell, "-c", "echo hello; echo READY 127.0.0.1:7; exec sleep 60"}, "", serverReady)
	if err != nil {
		t.Fatal(err)
	}
	if p.ready != "127.0.0.1:7" || !p.alive() {
		t.Errorf("ready %q, alive %t", p.ready, p.alive())
	}
	if err := p.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if p.alive() {
		t.Error("alive after stop")
	}
}

func TestStartProcessThatEnds(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell here")
	}
	_, err = startProcess(t.Context(), []string{shell, "-c", "echo the port is taken >&2; exit 3"}, "", serverReady)
	if !errors.Is(err, errNotReady) || !strings.Contains(err.Error(), "the port is taken") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v: want errNotReady with what the process said", err)
	}
}

func TestStartProcessThatIsNotThere(t *testing.T) {
	t.Parallel()
	if _, err := startProcess(t.Context(), []string{"/no/such/program"}, "", serverReady); err == nil {
		t.Error("no error")
	}
}
