package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hearthws/hearth/bench/internal/process"
)

func TestOptionsThatAreRejected(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":         {[]string{"-fast"}, "flag provided but not defined: -fast"},
		"argument":             {[]string{"steady"}, `unexpected argument "steady"`},
		"unknown measure":      {[]string{"-measures", "steady,quick"}, `unknown measure "quick": valid names are steady, single, burst`},
		"empty measure":        {[]string{"-measures", ""}, `unknown measure ""`},
		"unknown server":       {[]string{"-servers", "hearth,nginx"}, `unknown server "nginx": valid names are hearth, hearth-raw, ref, limit`},
		"no server left":       {[]string{"-servers", "hearth-raw", "-measures", "echo"}, "measure echo has no server to run: it needs one of hearth, ref, limit"},
		"no rounds":            {[]string{"-rounds", "0"}, "-rounds 0: at least 1"},
		"rounds not a number":  {[]string{"-rounds", "many"}, `invalid value "many" for flag -rounds`},
		"no loops":             {[]string{"-loops", "0"}, "-loops 0: at least 1"},
		"negative check round": {[]string{"-check", "-rounds", "-1"}, "-rounds -1: at least 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), tc.args, &stdout, &stderr); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr.String(), tc.want) {
				t.Errorf("said %q, want %q in it", stderr.String(), tc.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("printed %q", stdout.String())
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"-h"}, &stderr, &stderr); code != exitOK {
		t.Errorf("exit code %d, want %d", code, exitOK)
	}
	for _, name := range []string{"-rounds", "-measures", "-servers", "-out", "-check", "-loops", "-cache", "take turns"} {
		if !strings.Contains(stderr.String(), name) {
			t.Errorf("help says nothing of %s", name)
		}
	}
}

func TestOptionsThatAreAccepted(t *testing.T) {
	t.Parallel()
	const all = "steady single burst free echo idle connects sealed sealed-mixed redis-held redis-elsewhere redis-rate rooms"
	for name, tc := range map[string]struct {
		args     []string
		rounds   int
		measures string
		servers  string
	}{
		"all":            {nil, 5, all, "hearth hearth-raw ref limit"},
		"check":          {[]string{"-check"}, 1, all, "hearth hearth-raw ref limit"},
		"check, rounds":  {[]string{"-check", "-rounds", "3"}, 3, all, "hearth hearth-raw ref limit"},
		"in their order": {[]string{"-measures", "echo,steady", "-servers", "limit,hearth"}, 5, "steady echo", "hearth limit"},
		"named twice":    {[]string{"-measures", "echo,echo", "-servers", "limit,limit"}, 5, "echo", "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache := t.TempDir()
			opts, err := parseOptions(append(tc.args, "-cache", cache), &bytes.Buffer{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, m := range opts.measures {
				names = append(names, m.name)
			}
			if got := strings.Join(names, " "); got != tc.measures {
				t.Errorf("measures %q, want %q", got, tc.measures)
			}
			if got := strings.Join(opts.servers, " "); got != tc.servers {
				t.Errorf("servers %q, want %q", got, tc.servers)
			}
			if opts.rounds != tc.rounds {
				t.Errorf("%d rounds, want %d", opts.rounds, tc.rounds)
			}
			if dir := filepath.Dir(opts.out); dir != filepath.Join(cache, "results") {
				t.Errorf("results go to %s", dir)
			}
		})
	}
}

func TestCheckHasNoTargets(t *testing.T) {
	t.Parallel()
	targets := func(args ...string) (n int) {
		opts, err := parseOptions(append(args, "-cache", t.TempDir()), &bytes.Buffer{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range opts.measures {
			for _, f := range m.figures {
				n += len(f.targets)
			}
		}
		return n
	}
	if n := targets("-check"); n != 0 {
		t.Errorf("a check has %d targets", n)
	}
	if n := targets(); n == 0 {
		t.Error("a full run has no targets")
	}
}

func TestSkipReference(t *testing.T) {
	t.Parallel()
	opts, err := parseOptions([]string{"-check", "-servers", "ref,limit", "-measures", "echo,redis-held,rooms", "-cache", t.TempDir()}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	skipReference(&opts, &said, process.ErrNotReady)
	if len(opts.measures) != 1 || opts.measures[0].name != "echo" || len(opts.servers) != 1 {
		t.Errorf("left are %d measures of %q, want echo of limit", len(opts.measures), opts.servers)
	}
	want := "SKIPPED ref: did not become ready\nSKIPPED redis-held: no server is left\nSKIPPED rooms: no server is left\n"
	if said.String() != want {
		t.Errorf("said %q, want %q", said.String(), want)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	servers := []string{"a", "b", "c"}
	var got []string
	for round := range 4 {
		got = append(got, strings.Join(rotate(servers, round), ""))
	}
	if want := "abc bca cab abc"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMissingTools(t *testing.T) {
	t.Parallel()
	err := missing(tool{"no-such-tool-here", "apt-get install it"}, goTool, tool{"nor-this-one", "build it"})
	if err == nil {
		t.Fatal("no error")
	}
	want := "no-such-tool-here is missing; to install it: apt-get install it\nnor-this-one is missing; to install it: build it"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
