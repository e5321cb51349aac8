package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func TestOptionsThatAreRejected(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":    {[]string{"-fast"}, "flag provided but not defined: -fast"},
		"argument":        {[]string{"jitter"}, `unexpected argument "jitter"`},
		"measure":         {[]string{"-measures", "jitter,nothing"}, `unknown measure "nothing"`},
		"server":          {[]string{"-servers", "none"}, `unknown server "none"`},
		"too many":        {[]string{"-clients", "1000000"}, "-clients 1000000: 1 to 20,000"},
		"too long":        {[]string{"-duration", "1h"}, "-duration 1h0m0s: 1s to 10m"},
		"nothing to test": {[]string{"-check", "-servers", "ref"}, "no server to measure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), tc.args, &stdout, &stderr); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr.String(), tc.want) || stdout.Len() > 0 {
				t.Errorf("printed %q, and %q; want %q", stdout.String(), stderr.String(), tc.want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &help, &help); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, m := range measures() {
		if !strings.Contains(help.String(), m.name+" ") {
			t.Errorf("help does not list %s", m.name)
		}
	}
}

func TestCheckIsSmall(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-check"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range measures() {
		if size := o.size(m, 10_000); size.clients > 100 || size.length > 15*time.Second {
			t.Errorf("%s: %+v", m.name, size)
		}
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	r := result{Tally: tally{Expected: 100_000, Live: 99_999, Missed: 1, Duplicates: 1}, Violations: 2, First: "a reason"}
	r.require("received", r.Tally.received(), atLeast, 100)
	r.requireOrder()
	if len(r.Missed) != 3 {
		t.Errorf("missed %q", r.Missed)
	}
	var out bytes.Buffer
	p := newReport(&out)
	p.add(r)
	if err := p.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"99.99 %", "MISSED", "received twice 1, want ≤ 0", "first: a reason"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if p.missed != 3 {
		t.Errorf("counted %d", p.missed)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var sorted []time.Duration
	for i := range 100 {
		sorted = append(sorted, time.Duration(i+1)*time.Millisecond)
	}
	for p, want := range map[int]float64{50: 50, 95: 95, 99: 99, 100: 100} {
		if got := percentile(sorted, p); got != want {
			t.Errorf("p%d is %v, want %v", p, got, want)
		}
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("p50 of nothing is %v", got)
	}
}
