package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A result is what one measure of one server found.
type result struct {
	Kind       string         `json:"kind"` // "result"
	Measure    string         `json:"measure"`
	Server     string         `json:"server"`
	Clients    int            `json:"clients"`
	Tally      tally          `json:"tally"`
	Absences   int            `json:"absences"`
	BackP50    float64        `json:"back_p50_ms"`
	BackP99    float64        `json:"back_p99_ms"`
	Figures    []figure       `json:"figures,omitempty"`
	Violations int            `json:"violations"`
	First      string         `json:"first_violation,omitempty"`
	Ended      map[string]int `json:"ended,omitempty"` // errors that ended connections
	Missed     []string       `json:"missed,omitempty"`

	returned []time.Duration
}

// A figure is a further number of a measure.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

// during runs the clients while f runs.
func (c *crowd) during(ctx context.Context, f func(context.Context) error) error {
	err := c.start(ctx)
	defer c.end()
	if err != nil {
		return err
	}
	return f(ctx)
}

// result returns what the clients have found. They must have ended.
func (c *crowd) result(sent int) result {
	r := result{Kind: "result", Clients: len(c.clients), Tally: c.tally(sent), Violations: c.violations, First: c.first, Ended: c.noticed()}
	for _, member := range c.clients {
		r.Absences += len(member.absences)
	}
	if n := c.interruptions.Load(); n > 0 {
		r.add("rooms interrupted", float64(n), "")
	}
	for _, reason := range slices.Sorted(maps.Keys(c.reasons)) {
		r.add("joins that did not recover, "+reason, float64(c.reasons[reason]), "")
	}
	return r
}

// addTickets adds how many clients have resumed, if clients use tickets.
func (c *crowd) addTickets(r *result) {
	if !c.tickets {
		return
	}
	resumed := c.returned(func(a absence) bool { return a.resumed }, func(a absence) time.Time { return a.lost })
	r.add("sessions resumed by a ticket", float64(len(resumed)), "")
	r.add("tickets rejected", float64(c.rejected.Load()), "")
}

// between returns the times between two events of absences, sorted.
func (c *crowd) between(which func(absence) bool, from, to func(absence) time.Time) (took []time.Duration) {
	for _, member := range c.clients {
		for _, a := range member.absences {
			if which(a) {
				took = append(took, to(a).Sub(from(a)))
			}
		}
	}
	slices.Sort(took)
	return took
}

// returned returns how long clients took until they were back, sorted. from selects the time at
// which that begins.
func (c *crowd) returned(which func(absence) bool, from func(absence) time.Time) []time.Duration {
	back := func(a absence) bool { return which(a) && !a.back.IsZero() }
	return c.between(back, from, func(a absence) time.Time { return a.back })
}

// percentile returns the duration in milliseconds that p percent of sorted durations do not exceed.
func percentile(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[max(0, (len(sorted)*p+99)/100-1)]) / float64(time.Millisecond)
}

func (r *result) add(name string, value float64, unit string) {
	r.Figures = append(r.Figures, figure{name, value, unit})
}

type comparison string

const (
	atLeast comparison = "≥"
	atMost  comparison = "≤"
)

// require notes a target, which is missed if the value does not meet it.
func (r *result) require(name string, value float64, c comparison, bound float64) {
	if c == atLeast && value < bound || c == atMost && value > bound {
		r.Missed = append(r.Missed, fmt.Sprintf("%s %s, want %s %s", name, number(value), c, number(bound)))
	}
}

// requireOrder notes the targets of a server that promises that clients miss nothing.
func (r *result) requireOrder() {
	for name, n := range map[string]int{
		"received twice": r.Tally.Duplicates, "out of order": r.Tally.Disordered, "violations of the protocol": r.Violations,
	} {
		r.require(name, float64(n), atMost, 0)
	}
	slices.Sort(r.Missed)
}

// number formats a number with two digits after the point if it has a fraction.
func number(v float64) string {
	if v == float64(int64(v)) {
		return fmt.Sprint(int64(v))
	}
	return fmt.Sprintf("%.2f", v)
}

// A report prints results as a table.
type report struct {
	table  *tabwriter.Writer
	notes  []string
	missed int
}

func newReport(w io.Writer) *report {
	r := &report{table: tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)}
	fmt.Fprintln(r.table, "measure\tserver\tclients\taway\texpected\treceived\trecovered\treported\tmissed\ttwice\tdisorder\tback p50\tp99\ttargets\t")
	return r
}

func (r *report) add(x result) {
	verdict := "met"
	if len(x.Missed) > 0 {
		verdict = "MISSED"
		r.missed += len(x.Missed)
	}
	r.note(x)
	t := x.Tally
	if t.Expected == 0 {
		return // it has figures only
	}
	fmt.Fprintf(r.table, "%s\t%s\t%d\t%d\t%d\t%.2f %%\t%d\t%d\t%d\t%d\t%d\t%.0f ms\t%.0f ms\t%s\t\n", x.Measure, x.Server, x.Clients, x.Absences,
		t.Expected, floor(t.received()), t.Recovered, t.Reported, t.Missed, t.Duplicates, t.Disordered, x.BackP50, x.BackP99, verdict)
}

// floor rounds a percentage down, so that 100.00 means all.
func floor(percent float64) float64 { return float64(int(percent*100)) / 100 }

// note adds a line that is printed below the table.
func (r *report) note(x result) {
	var parts []string
	for _, f := range x.Figures {
		parts = append(parts, strings.TrimSpace(f.Name+" "+number(f.Value)+" "+f.Unit))
	}
	if x.Violations > 0 {
		parts = append(parts, fmt.Sprintf("%d violations of the protocol, first: %s", x.Violations, x.First))
	}
	if len(x.Ended) > 0 {
		parts = append(parts, fmt.Sprintf("connections ended by %v", x.Ended))
	}
	for _, m := range x.Missed {
		parts = append(parts, "MISSED: "+m)
	}
	if len(parts) > 0 {
		r.notes = append(r.notes, fmt.Sprintf("%s, %s, clients: %d\n  %s", x.Measure, x.Server, x.Clients, strings.Join(parts, "; ")))
	}
}

// print prints the table and the notes.
func (r *report) print(w io.Writer) error {
	if err := r.table.Flush(); err != nil {
		return err
	}
	if len(r.notes) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(r.notes, "\n"))
	}
	return nil
}
