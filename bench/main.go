// Command bench measures Hearth, the reference implementation on Bun, and a bare C server that only
// does the fan-out, in one run on one machine. It prints the cost of each operation and the ratios.
// Run it in its own folder with `go run .`; docs/benchmarks.md explains the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/bench/internal/process"
)

const (
	exitOK    = 0
	exitFail  = 1 // a server could not be run, or lost a message
	exitUsage = 2
)

func main() { os.Exit(process.Main(run)) }

// options are the options of the command line.
type options struct {
	rounds   int
	measures []measure
	servers  []string
	out      string
	cache    string
	loops    int
	check    bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	if err := measureAll(ctx, opts, args, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFail
	}
	return exitOK
}

// measureAll performs a run: tools, programs, rounds, table.
func measureAll(ctx context.Context, opts options, args []string, stdout, stderr io.Writer) error {
	env, err := prepare(ctx, &opts, stderr)
	if err != nil {
		return err
	}
	defer env.close()

	if err := os.MkdirAll(filepath.Dir(opts.out), 0o755); err != nil {
		return fmt.Errorf("create the folder of the results: %w", err)
	}
	file, err := os.Create(opts.out)
	if err != nil {
		return fmt.Errorf("create the file of the results: %w", err)
	}
	defer file.Close()
	rec := newRecorder(file)
	about := describe(ctx, env, opts, args)
	if err := rec.write(about); err != nil {
		return err
	}

	results, err := runRounds(ctx, env, opts, rec, stderr)
	if err != nil {
		return err
	}
	lines := summarize(opts.measures, opts.servers, results)
	for _, l := range lines {
		if err := rec.write(l); err != nil {
			return err
		}
	}
	printReport(stdout, about, lines, results, opts.check)
	fmt.Fprintf(stdout, "\nresults: %s\n", opts.out)
	if err := file.Close(); err != nil {
		return fmt.Errorf("close the file of the results: %w", err)
	}
	if failed := countFailed(results); failed > 0 {
		return fmt.Errorf("%d of %d runs failed or lost messages: see above", failed, len(results))
	}
	return nil
}

const usage = `usage: go run . [options]

A round starts each server of a measure, measures it and stops it. Ratios are computed within
rounds. In steady, single, burst, free and echo the servers of a round take turns: all are started
and get their clients. Then each gets load for about a second, eleven times, in a changing order, so
a machine whose speed drifts slows all of them alike. The first turn of each server in a round warms
it up and does not count.

docs/benchmarks.md explains the figures.

`

// parseOptions parses the command line. It explains the errors.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	var opts options
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() {
		fmt.Fprint(stderr, usage)
		set.PrintDefaults()
	}
	set.IntVar(&opts.rounds, "rounds", 0, "how often each server is measured in each measure (default 5; with -check 1)")
	measureList := set.String("measures", strings.Join(measureNames(), ","), "what to measure, comma-separated")
	serverList := set.String("servers", strings.Join(serverNames(), ","), "what to measure it of, comma-separated")
	set.StringVar(&opts.out, "out", "", "file for the results, one JSON object a line (default: a new one in the cache folder)")
	set.StringVar(&opts.cache, "cache", "", "folder for what is built and installed (default: hearth-bench in the user's cache folder)")
	set.IntVar(&opts.loops, "loops", 1, "event loops of Hearth")
	set.BoolVar(&opts.check, "check", false, "a tiny run that checks that everything works: its figures mean nothing")
	if err := set.Parse(args); err != nil {
		return options{}, err
	}
	if set.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if err := opts.choose(*measureList, *serverList); err != nil {
		return options{}, err
	}
	return opts.withDefaults(isSet(set, "rounds"))
}

// choose sets the lists of measures and servers.
func (o *options) choose(measureList, serverList string) error {
	names, err := pick("measure", measureList, measureNames())
	if err != nil {
		return err
	}
	for _, m := range measures {
		if slices.Contains(names, m.name) {
			o.measures = append(o.measures, m)
		}
	}
	if o.servers, err = pick("server", serverList, serverNames()); err != nil {
		return err
	}
	for _, m := range o.measures {
		if len(m.serversOf(o.servers)) == 0 {
			return fmt.Errorf("measure %s has no server to run: it needs one of %s", m.name, strings.Join(m.serversOf(serverNames()), ", "))
		}
	}
	return nil
}

func (o options) withDefaults(roundsSet bool) (options, error) {
	switch {
	case roundsSet && o.rounds < 1:
		return options{}, fmt.Errorf("-rounds %d: at least 1", o.rounds)
	case !roundsSet && o.check:
		o.rounds = 1
	case !roundsSet:
		o.rounds = 5
	}
	if o.check {
		o.measures = withoutTargets(o.measures)
	}
	if o.loops < 1 {
		return options{}, fmt.Errorf("-loops %d: at least 1", o.loops)
	}
	if o.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return options{}, fmt.Errorf("find a cache folder (or use -cache): %w", err)
		}
		o.cache = filepath.Join(dir, "hearth-bench")
	}
	if o.out == "" {
		o.out = filepath.Join(o.cache, "results", time.Now().UTC().Format("20060102T150405Z")+".jsonl")
	}
	return o, nil
}

func isSet(set *flag.FlagSet, name string) bool {
	found := false
	set.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// pick splits a comma-separated list and rejects unknown names. It returns the names in the order
// of known.
func pick(what, list string, known []string) ([]string, error) {
	wanted := strings.Split(list, ",")
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown %s %q: valid names are %s", what, name, strings.Join(known, ", "))
		}
	}
	var chosen []string
	for _, name := range known {
		if slices.Contains(wanted, name) {
			chosen = append(chosen, name)
		}
	}
	return chosen, nil
}
