package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOrderOfTurns(t *testing.T) {
	t.Parallel()
	var got []string
	for turn := range 7 {
		got = append(got, strings.Join(inOrder([]string{"a", "b", "c"}, turn), ""))
	}
	// The first turn warms up. Each later pair is one order and its reverse; three pairs are all
	// orders.
	if want := "cba bca acb cab bac abc cba"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := inOrder([]string{"a"}, 0); !slices.Equal(got, []string{"a"}) {
		t.Errorf("of one: %q", got)
	}
}

// TestMeasuresThatTakeTurns checks that a measure takes turns in a full run and in a check alike,
// and that it uses only fields that sumTurns adds up.
func TestMeasuresThatTakeTurns(t *testing.T) {
	t.Parallel()
	var names []string
	for _, m := range measures {
		if (m.full.turns > 0) != (m.check.turns > 0) {
			t.Errorf("%s takes %d turns, %d in a check", m.name, m.full.turns, m.check.turns)
		}
		if m.full.turns == 0 {
			continue
		}
		names = append(names, m.name)
		if (m.mode != "fan" && m.mode != "echo") || m.full.kept+m.check.kept+m.nodes > 0 {
			t.Errorf("%s takes turns: the load generator cannot", m.name)
		}
	}
	if want := "steady single burst free echo"; strings.Join(names, " ") != want {
		t.Errorf("%q take turns; the help says %q", names, want)
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	servers := []string{"a", "b"}
	if got := (measure{full: load{turns: 3}}).groups(servers); len(got) != 1 || !slices.Equal(got[0], servers) {
		t.Errorf("in turns: %q", got)
	}
	if got := (measure{}).groups(servers); len(got) != 2 || !slices.Equal(got[0], servers[:1]) || !slices.Equal(got[1], servers[1:]) {
		t.Errorf("in one go: %q", got)
	}
}

// TestMeasureGroupGoesOnWithoutThoseThatFail checks that the failure of one entrant does not affect
// the others.
func TestMeasureGroupGoesOnWithoutThoseThatFail(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("SKIPPED: no shell here")
	}
	generator, err := filepath.Abs(filepath.Join("testdata", "generator.sh"))
	if err != nil {
		t.Fatal(err)
	}
	// in the order of the sources, by which the script chooses
	fates := []struct{ server, want string }{
		{"a good one", ""},
		{"loses one while it warms up", "in turn 0 of 3: 1 of 20 messages lost"},
		{"loses one", "in turn 2 of 3: 1 of 20 messages lost"},
		{"breaks its load generator", "in turn 2 of 3: the load generator gave up: exit status 1: it broke"},
		{"lets nobody in", "the load generator gave up: exit status 3: nobody there"},
		{"ends", "in turn 3 of 3: 13 of 20 messages lost\nthe server has ended: signal: terminated"},
		{"leaves its load generator unhappy", "the load generator gave up: exit status 5: "},
		{"does not start", "did not become ready"},
		{"another good one", ""},
	}
	env := &environment{load: generator, argv: map[string][]string{}}
	var servers []string
	for _, f := range fates {
		env.argv[f.server] = []string{shell, "-c", "echo READY 127.0.0.1:7; exec sleep 60"}
		servers = append(servers, f.server)
	}
	env.argv["does not start"] = []string{shell, "-c", "exit 1"}
	m := measure{name: "steady", mode: "fan", check: load{clients: 2, messages: 10, turns: 3}, figures: []figure{cpuPerDelivery(1, 1)}}

	results := measureGroup(t.Context(), newEntrants(env, m, servers, 0, true))
	if len(results) != len(fates) {
		t.Fatalf("%d results, want %d", len(results), len(fates))
	}
	for i, f := range fates {
		r := results[i]
		switch {
		case f.want == "" && r.Error != "":
			t.Errorf("%s: error %q", f.server, r.Error)
		case f.want == "":
			checkSum(t, r)
		case !strings.Contains(r.Error, f.want):
			t.Errorf("%s: error %q, want %q in it", f.server, r.Error, f.want)
		case r.Figures != nil:
			t.Errorf("%s: has figures", f.server)
		}
	}
}

// checkSum checks the sum of the script's turns: their server CPU is 0, 1, 2, 3 seconds.
func checkSum(t *testing.T, r result) {
	t.Helper()
	if len(r.Turns) != 4 || r.Reading == nil {
		t.Fatalf("%s: %d turns, reading %v", r.Server, len(r.Turns), r.Reading)
	}
	if r.Reading.Got != 60 || r.Reading.Seconds != 3 || r.Reading.ServerCPUS != 6 || r.Reading.ConnectSeconds != 9 {
		t.Errorf("%s: the reading is %+v", r.Server, *r.Reading)
	}
	if got := r.Figures["cpu_us"]; got != 1e5 {
		t.Errorf("%s: %g µs a message, want 100,000", r.Server, got)
	}
	if r.Shares.Server != 2 {
		t.Errorf("%s: shares %+v", r.Server, r.Shares)
	}
}

// TestMeasureGroup runs the real load generator and limit server together with another server, in
// turns and in one piece.
func TestMeasureGroup(t *testing.T) {
	t.Parallel()
	loader, limit := compileC(t, "load.c"), compileC(t, "limit.c")
	env := &environment{load: loader, argv: map[string][]string{"one": {limit, "0"}, "other": {limit, "0"}}}
	for name, tc := range map[string]struct {
		mode string
		load load
		want int64 // messages; -1: any number
	}{
		"paced":     {"fan", load{clients: 7, turns: 3, messages: 10, rate: 200, seconds: 20, settle: 0.05}, 210},
		"saturated": {"fan", load{clients: 20, turns: 2, messages: 500, batch: 64, seconds: 20, settle: 0.05}, 20000},
		"echo":      {"echo", load{clients: 10, turns: 2, seconds: 0.05, settle: 0.05}, -1},
		"in one go": {"fan", load{clients: 7, messages: 10, batch: 1, seconds: 20, settle: 0.05}, 70},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := measure{name: name, mode: tc.mode, full: tc.load, check: tc.load, figures: []figure{deliveriesPerSecond}}
			for _, group := range m.groups([]string{"one", "other"}) {
				for _, r := range measureGroup(t.Context(), newEntrants(env, m, group, 0, true)) {
					if r.Error != "" {
						t.Errorf("%s: %s", r.Server, r.Error)
						continue
					}
					if tc.want >= 0 && r.Reading.Got != tc.want {
						t.Errorf("%s: %d messages, want %d", r.Server, r.Reading.Got, tc.want)
					}
					if want := tc.load.turns; want > 0 && len(r.Turns) != want+1 {
						t.Errorf("%s: %d turns, want %d and one to warm up", r.Server, len(r.Turns), want)
					}
					if r.Figures["per_s"] <= 0 {
						t.Errorf("%s: figures %v", r.Server, r.Figures)
					}
				}
			}
		})
	}
}
