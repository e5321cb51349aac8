package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// samples are durations of the same operation.
type samples []time.Duration

// percentile returns the duration in milliseconds that p percent of the samples do not exceed, and
// 0 without samples.
func (s samples) percentile(p int) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	at := (len(sorted)*p+99)/100 - 1
	return ms(sorted[max(at, 0)])
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A figure is one result of one attack. With several rounds the median counts if typical is set,
// otherwise the worst.
type figure struct {
	name    string
	value   float64
	unit    string
	target  target
	typical bool
	note    string // what the value alone does not say
}

// A target is the wanted value of a figure. The zero target means none.
type target struct {
	kind  string // "≤" or "≥"
	bound float64
}

func atMost(bound float64) target  { return target{"≤", bound} }
func atLeast(bound float64) target { return target{"≥", bound} }

// met reports whether a value meets the target.
func (t target) met(v float64) bool {
	switch t.kind {
	case "≤":
		return v <= t.bound
	case "≥":
		return v >= t.bound
	}
	return true
}

// worse reports whether a is further from the target than b.
func (t target) worse(a, b float64) bool {
	if t.kind == "≥" {
		return a < b
	}
	return a > b
}

// A row is one line of the table: a figure over all rounds.
type row struct {
	Kind    string    `json:"kind"` // "figure"
	Attack  string    `json:"attack"`
	Figure  string    `json:"figure"`
	Value   float64   `json:"value"`
	Unit    string    `json:"unit,omitempty"`
	Values  []float64 `json:"values"` // of each round
	Target  string    `json:"target,omitempty"`
	Met     bool      `json:"met"`
	Note    string    `json:"note,omitempty"` // of the last round
	Typical bool      `json:"median"`         // Value is the median of Values, otherwise the worst

	target target
}

// joinRounds joins the figures of an attack's rounds by name, in the order of their first appearance.
func joinRounds(attack string, rounds [][]figure) []row {
	var rows []row
	for _, figures := range rounds {
		for _, f := range figures {
			at := slices.IndexFunc(rows, func(r row) bool { return r.Figure == f.name })
			if at < 0 {
				at = len(rows)
				rows = append(rows, row{Kind: "figure", Attack: attack, Figure: f.name, Unit: f.unit, Typical: f.typical, target: f.target})
			}
			rows[at].Values, rows[at].Note = append(rows[at].Values, f.value), f.note
		}
	}
	for i := range rows {
		rows[i].judge()
	}
	return rows
}

func (r *row) judge() {
	if r.Typical {
		sorted := slices.Sorted(slices.Values(r.Values))
		r.Value = sorted[(len(sorted)-1)/2]
		if len(sorted)%2 == 0 {
			r.Value = (r.Value + sorted[len(sorted)/2]) / 2
		}
	} else {
		r.Value = r.Values[0]
		for _, v := range r.Values {
			if r.target.worse(v, r.Value) {
				r.Value = v
			}
		}
	}
	r.Met = r.target.met(r.Value)
	if r.target.kind != "" {
		r.Target = r.target.kind + " " + withUnit(r.target.bound, r.Unit)
	}
}

// print writes the row as a line of the table.
func (r row) print(w io.Writer) {
	value := withUnit(r.Value, r.Unit)
	if len(r.Values) > 1 {
		value += " [" + number(slices.Min(r.Values)) + "–" + number(slices.Max(r.Values)) + "]"
	}
	verdict := "met"
	switch {
	case !r.Met:
		verdict = "MISSED"
	case r.target.kind == "":
		verdict = ""
	}
	line := fmt.Sprintf("%-13s %-42s %22s  %-14s %-6s  %s", r.Attack, r.Figure, value, r.Target, verdict, r.Note)
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}

func withUnit(v float64, unit string) string { return strings.TrimSpace(number(v) + " " + unit) }

// number formats a number with three digits, or with all digits before the decimal point.
func number(v float64) string {
	switch {
	case v == float64(int64(v)) || v >= 100:
		return strconv.FormatInt(int64(v+0.5), 10)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
