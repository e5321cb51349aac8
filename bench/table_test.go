package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// newResult returns a result of the measure steady, changed by change.
func newResult(server string, round int, cpu float64, change ...func(*result)) result {
	r := result{Kind: "result", Measure: "steady", Server: server, Round: round, Bound: boundPace,
		Figures: map[string]float64{"cpu_us": cpu}, Command: []string{"load"}}
	for _, c := range change {
		c(&r)
	}
	return r
}

func steadyOnly(t *testing.T) []measure {
	t.Helper()
	if measures[0].name != "steady" {
		t.Fatal("the first measure is not steady")
	}
	return measures[:1]
}

func TestSummarizeLeavesErrorsOut(t *testing.T) {
	t.Parallel()
	results := []result{
		newResult("hearth", 0, 8), newResult("ref", 0, 16), newResult("limit", 0, 8),
		newResult("hearth", 1, 100, func(r *result) { r.Error = "lost" }), newResult("ref", 1, 20), newResult("limit", 1, 8),
		newResult("hearth", 2, 9), newResult("ref", 2, 12), newResult("limit", 2, 9),
	}
	lines := summarize(steadyOnly(t), serverNames(), results)
	if len(lines) != 3 {
		t.Fatalf("%d lines, want one each of hearth, ref and limit: hearth-raw has no part in steady", len(lines))
	}
	hearth := lines[0]
	if want := (spread{8.5, 8, 9, 2}); hearth.Spread != want {
		t.Errorf("spread %+v, want %+v", hearth.Spread, want)
	}
	if len(hearth.Ratios) != 2 {
		t.Fatalf("%d ratios, want 2", len(hearth.Ratios))
	}
	for i, want := range []comparison{
		{Against: "ref", Ratio: spread{0.625, 0.5, 0.75, 2}, Target: "≤0.95", Verdict: verdictMet},
		{Against: "limit", Ratio: spread{1, 1, 1, 2}, Target: "≤1.15", Verdict: verdictMet},
	} {
		if got := hearth.Ratios[i]; got != want {
			t.Errorf("ratio %d is %+v, want %+v", i, got, want)
		}
	}
	if n := len(lines[2].Ratios); n != 0 {
		t.Errorf("limit has %d ratios, want none", n)
	}
}

func TestCompareTarget(t *testing.T) {
	t.Parallel()
	most, least := target{bound: 1}, target{bound: 4, atLeast: true}
	for name, tc := range map[string]struct {
		target target
		ratio  spread
		want   string
	}{
		"below":          {most, spread{Median: 0.9, Min: 0.8, Max: 1}, verdictMet},
		"above":          {most, spread{Median: 1.2, Min: 1.1, Max: 1.3}, verdictMissed},
		"astride":        {most, spread{Median: 0.9, Min: 0.8, Max: 1.1}, verdictUnclear},
		"enough":         {least, spread{Median: 5, Min: 4, Max: 6}, verdictMet},
		"not enough":     {least, spread{Median: 3, Min: 2, Max: 3.9}, verdictMissed},
		"enough astride": {least, spread{Median: 5, Min: 3.9, Max: 6}, verdictUnclear},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := compareTarget(tc.target, tc.ratio); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestPrintTable(t *testing.T) {
	t.Parallel()
	lines := summarize(measures[:2], []string{"hearth", "ref"}, []result{
		newResult("hearth", 0, 7.25), newResult("ref", 0, 7.5), newResult("hearth", 1, 7.75), newResult("ref", 1, 7.5),
		newResult("ref", 0, 5.123, func(r *result) { r.Measure = "single"; r.Figures["per_s"] = 191234.7 }),
	})
	var b bytes.Buffer
	printTable(&b, lines)
	want := strings.Join([]string{
		"MEASURE  FIGURE           SERVER  MEDIAN [MIN–MAX]        × REF           × LIMIT",
		"steady   CPU µs/delivery  hearth  7.5 [7.25–7.75]         1 ≤0.95 MISSED  ",
		"                          ref     7.5 [7.5–7.5]                           ",
		"single   CPU µs/delivery  hearth  no result                               ",
		"                          ref     5.12 [5.12–5.12]                        ",
		"         deliveries/s     hearth  no result                               ",
		"                          ref     191235 [191235–191235]                  ",
		"",
	}, "\n")
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestNotes(t *testing.T) {
	t.Parallel()
	loaded := func(r *result) { r.Bound = boundLoad }
	disturbed := func(r *result) { r.Shares.Others = 0.5 }
	stolen := func(r *result) { r.Shares.Steal = 0.2 }
	failed := func(r *result) { r.Error = "lost"; r.Bound = boundLoad; r.Shares.Others = 1 }
	late := func(r *result) { r.Reading = &reading{Got: 1000, Reads: 500, SpreadP50US: 1} }
	inTime := func(r *result) { r.Reading = &reading{Got: 1000, Reads: 1000, SpreadP50US: 1} }
	unpaced := func(r *result) { r.Reading = &reading{Got: 1000, Reads: 10} }
	got := notesOn([]result{
		newResult("hearth", 0, 1, loaded, inTime), newResult("ref", 0, 1, disturbed, late), newResult("hearth", 1, 1, loaded, stolen, unpaced), newResult("limit", 1, 1, failed, late),
	})
	want := []string{
		"steady, hearth: the load generator was the limit in 2 rounds: rates are its own, CPU per operation is the server's.",
		"steady, ref: in 1 rounds messages were late and shared a read, perhaps a write: the machine was too busy for this measure.",
		"In 1 of 4 results other processes used over 0.1 of a core: measure again on a quiet machine.",
		"In 1 of 4 results other virtual machines used over 0.1 of a core: measure again on a quiet machine.",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if quiet := notesOn([]result{newResult("hearth", 0, 1)}); len(quiet) != 0 {
		t.Errorf("a quiet run has notes: %q", quiet)
	}
}

func TestReportOfTurns(t *testing.T) {
	t.Parallel()
	opts, err := parseOptions([]string{"-measures", "echo,steady,idle", "-cache", t.TempDir()}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := (about{Turns: turnsPerServer(opts)}).turnsLine(), "turns of each server in a round: steady 10, echo 10\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (about{}).turnsLine(); got != "" {
		t.Errorf("without turns: %q", got)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for value, want := range map[float64]string{0: "0", 0.08049: "0.0805", 7.256: "7.26", 99.96: "100", 1234.6: "1235", 11600000: "11600000", -3809: "-3809"} {
		if got := number(value); got != want {
			t.Errorf("number(%g) is %q, want %q", value, got, want)
		}
	}
}

func TestRecorderWritesOneObjectALine(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	rec := newRecorder(&b)
	results := []result{newResult("hearth", 0, 7), newResult("ref", 0, 10, func(r *result) { r.Error = "one\ntwo"; r.Figures = nil })}
	all := []any{about{Kind: "about", Date: time.Unix(0, 0).UTC(), Commit: "abc", Rounds: 1}, results[0], results[1]}
	for _, l := range summarize(steadyOnly(t), []string{"hearth", "ref"}, results) {
		all = append(all, l)
	}
	for _, v := range all {
		if err := rec.write(v); err != nil {
			t.Fatal(err)
		}
	}
	var kinds []string
	for lines := bufio.NewScanner(&b); lines.Scan(); {
		var object struct{ Kind, Commit, Server, Error string }
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		kinds = append(kinds, strings.Join([]string{object.Kind, object.Commit, object.Server, object.Error}, "/"))
	}
	want := "about/abc// result//hearth/ result//ref/one\ntwo summary//hearth/ summary//ref/"
	if got := strings.Join(kinds, " "); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestRecorderReportsWhatItCannotWrite(t *testing.T) {
	t.Parallel()
	if err := newRecorder(full{}).write(about{}); !errors.Is(err, errFull) {
		t.Errorf("error %v, want errFull", err)
	}
}
