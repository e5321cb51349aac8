package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLoadNoticesFaultsInTurns checks that faults in a later turn, or between two turns, are
// noticed as in the first one.
func TestLoadNoticesFaultsInTurns(t *testing.T) {
	t.Parallel()
	loader := compileC(t, "load.c")
	for name, tc := range map[string]struct {
		fault   fault
		between func(*faulty) // before the second turn
		want    string        // of the second turn, as in TestLoadNoticesFaults
	}{
		"none":                {fault{}, nil, ""},
		"wants heartbeats":    {fault{strict: true}, nil, ""},
		"lost":                {fault{order: 2, skip: true}, nil, "1 of 30 messages lost"},
		"twice":               {fault{order: 2, twice: true}, nil, "extra messages"},
		"hangs up":            {fault{order: 2, hangUp: true}, nil, "1 connections closed"},
		"unasked in between":  {fault{}, (*faulty).sayUnasked, "since the last turn: 3 unexpected messages"},
		"hangs up in between": {fault{}, (*faulty).hangUp, "3 connections closed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startFaulty(t, tc.fault)
			g, err := startGenerator(t.Context(), []string{loader, "-port", strconv.Itoa(s.port()), "-pid", strconv.Itoa(os.Getpid()),
				"-settle", "0.05", "-verify", "1", "-turns", "1", "-mode", "fan", "-clients", "3", "-messages", "10", "-rate", "0", "-seconds", "20"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				g.kill()
				_ = g.wait()
			}()
			if connected, err := g.read(time.Minute); err != nil || connected.ConnectSeconds <= 0 {
				t.Fatalf("connecting took %g s, error %v", connected.ConnectSeconds, err)
			}
			if err := takeTurn(g); err != nil {
				t.Fatalf("the first turn: %v", err)
			}
			if tc.between != nil {
				tc.between(s)
			}
			err = takeTurn(g)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("a problem: %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func takeTurn(g *generator) error {
	g.turn()
	r, err := g.read(time.Minute)
	if err != nil {
		return err
	}
	return r.problem()
}

func TestSilentGenerator(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sleep"); err != nil {
		t.Skip("SKIPPED: no sleep here")
	}
	g, err := startGenerator(t.Context(), []string{"sleep", "60"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.read(time.Millisecond); err == nil || !strings.Contains(err.Error(), "no output in 1ms: signal: killed") {
		t.Errorf("error %v", err)
	}
	if err := g.end(); err == nil || !strings.Contains(err.Error(), "gave up: signal: killed") {
		t.Errorf("end: %v", err)
	}
}

func TestMissingGenerator(t *testing.T) {
	t.Parallel()
	if _, err := startGenerator(t.Context(), []string{"/no/such/program"}); err == nil || !strings.Contains(err.Error(), "start the load generator") {
		t.Errorf("error %v", err)
	}
}
