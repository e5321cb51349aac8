package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// The results of comparing a figure with its target.
const (
	verdictMet     = "met"
	verdictMissed  = "MISSED"
	verdictUnclear = "unclear" // the median meets or misses it, but the rounds disagree
)

// A line is a row of the table: one figure of one server.
type line struct {
	Kind    string       `json:"kind"` // "summary"
	Measure string       `json:"measure"`
	Figure  string       `json:"figure"`
	Name    string       `json:"name"`
	Server  string       `json:"server"`
	Spread  spread       `json:"spread"`
	Ratios  []comparison `json:"ratios,omitempty"`
}

// A comparison is a server's figure as a multiple of another's, by round.
type comparison struct {
	Against string `json:"against"`
	Ratio   spread `json:"ratio"`
	Target  string `json:"target,omitempty"`
	Verdict string `json:"verdict,omitempty"`
}

// summarize makes the rows, in the order of measures, figures and servers. It leaves out failed
// results.
func summarize(measures []measure, servers []string, results []result) []line {
	var lines []line
	for _, m := range measures {
		for _, f := range m.figures {
			byServer := collectValues(m.name, f.key, results)
			for _, server := range m.serversOf(servers) {
				l := line{Kind: "summary", Measure: m.name, Figure: f.key, Name: f.name, Server: server,
					Spread: roundSpread(byServer[server])}
				for _, against := range []string{serverRef, serverLimit} {
					if c, ok := compare(f, server, against, byServer); ok {
						l.Ratios = append(l.Ratios, c)
					}
				}
				lines = append(lines, l)
			}
		}
	}
	return lines
}

// collectValues returns the values of a figure by server and round.
func collectValues(measure, key string, results []result) map[string]map[int]float64 {
	values := map[string]map[int]float64{}
	for _, r := range results {
		if r.Measure != measure || r.Error != "" {
			continue
		}
		if values[r.Server] == nil {
			values[r.Server] = map[int]float64{}
		}
		values[r.Server][r.Round] = r.Figures[key]
	}
	return values
}

func compare(f figure, server, against string, values map[string]map[int]float64) (comparison, bool) {
	// other servers are compared with the limit, not the reverse
	if f.alone || server == against || server == serverLimit {
		return comparison{}, false
	}
	c := comparison{Against: against, Ratio: roundRatios(values[server], values[against])}
	if c.Ratio.Count == 0 {
		return comparison{}, false
	}
	for _, t := range f.targets {
		if t.server == server && t.against == against {
			c.Target, c.Verdict = t.String(), compareTarget(t, c.Ratio)
		}
	}
	return c, true
}

func compareTarget(t target, ratio spread) string {
	switch {
	case t.metBy(ratio.Min) != t.metBy(ratio.Max):
		return verdictUnclear
	case t.metBy(ratio.Median):
		return verdictMet
	default:
		return verdictMissed
	}
}

// printReport prints the description of the run, the table, and the remarks.
func printReport(w io.Writer, a about, lines []line, results []result, check bool) {
	modified := ""
	if a.Modified {
		modified = ", modified"
	}
	fmt.Fprintf(w, "\n%s  commit %.12s%s\n", a.Date.Format("2006-01-02 15:04 MST"), a.Commit, modified)
	fmt.Fprintf(w, "%s, %d cores, %s, Linux %s, %s; rounds %d, loops %d\n%s\n",
		a.Machine.CPU, a.Machine.Cores, a.Machine.Memory, a.Machine.Kernel, a.Versions["go"], a.Rounds, a.Loops, a.turnsLine())
	printTable(w, lines)
	if check {
		fmt.Fprint(w, "\nA check: what ran without an error lost nothing. The figures mean nothing.\n")
		return
	}
	if notes := notesOn(results); len(notes) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	}
}

func printTable(w io.Writer, lines []line) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEASURE\tFIGURE\tSERVER\tMEDIAN [MIN–MAX]\t× REF\t× LIMIT")
	previous := line{}
	for _, l := range lines {
		measure, figure := l.Measure, l.Name
		if l.Measure == previous.Measure {
			measure = ""
			if l.Figure == previous.Figure {
				figure = ""
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", measure, figure, l.Server, l.Spread, l.ratio(serverRef), l.ratio(serverLimit))
		previous = l
	}
	_ = t.Flush() // errors of w are ignored here, as in all writes to it
}

func (l line) ratio(against string) string {
	for _, c := range l.Ratios {
		if c.Against == against {
			return strings.TrimSpace(fmt.Sprintf("%s %s %s", number(c.Ratio.Median), c.Target, c.Verdict))
		}
	}
	return ""
}

func (s spread) String() string {
	if s.Count == 0 {
		return "no result"
	}
	return fmt.Sprintf("%s [%s–%s]", number(s.Median), number(s.Min), number(s.Max))
}

// number formats a number with three significant digits, and a large one as an integer.
func number(v float64) string {
	if math.Abs(v) >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// A remark is a note that applies to some rounds of one server in one measure.
type remark struct {
	applies func(result) bool
	text    string // follows "measure, server: ", with a verb for the number of rounds
}

var remarks = []remark{
	{func(r result) bool { return r.Bound == boundLoad },
		"the load generator was the limit in %d rounds: rates are its own, CPU per operation is the server's."},
	{func(r result) bool { return r.Bound == boundRedis },
		"Redis was the limit in %d rounds: rates are its own, CPU per operation is the server's."},
	{func(r result) bool { return r.Bound == boundMachine },
		"in %d rounds server, Redis and load generator together used the machine up: rates are its own, CPU per operation is the server's."},
	{result.late,
		"in %d rounds messages were late and shared a read, perhaps a write: the machine was too busy for this measure."},
	{func(r result) bool { return r.Reading != nil && r.Reading.Reordered > 0 },
		"in %d rounds encrypted clients got messages out of order."},
}

// notesOn returns remarks on results that other things than the server influenced.
func notesOn(results []result) []string {
	var notes []string
	for _, remark := range remarks {
		notes = append(notes, remark.on(results)...)
	}
	const noticeable = 0.1 // of a core
	disturbed, stolen := 0, 0
	for _, r := range results {
		if r.Error != "" {
			continue
		}
		if r.Shares.Others > noticeable {
			disturbed++
		}
		if r.Shares.Steal > noticeable {
			stolen++
		}
	}
	for _, n := range []struct {
		results int
		what    string
	}{{disturbed, "other processes"}, {stolen, "other virtual machines"}} {
		if n.results > 0 {
			notes = append(notes, fmt.Sprintf("In %d of %d results %s used over %s of a core: measure again on a quiet machine.",
				n.results, cmp.Or(len(results), 1), n.what, number(noticeable)))
		}
	}
	return notes
}

// on returns the remark for each measure and server that it applies to, in the order of results.
func (m remark) on(results []result) []string {
	type key struct{ measure, server string }
	var found []key
	rounds := map[key]int{}
	for _, r := range results {
		if r.Error != "" || !m.applies(r) {
			continue
		}
		k := key{r.Measure, r.Server}
		if rounds[k]++; rounds[k] == 1 {
			found = append(found, k)
		}
	}
	notes := make([]string, 0, len(found))
	for _, k := range found {
		notes = append(notes, fmt.Sprintf("%s, %s: "+m.text, k.measure, k.server, rounds[k]))
	}
	return notes
}
