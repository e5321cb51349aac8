package main

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReading(t *testing.T) {
	t.Parallel()
	line := `{"mode":"fan","clients":10,"connect_seconds":0.5,"connect_cpu_s":0.25,"seconds":2,"server_cpu_s":1.5,` +
		`"load_cpu_s":1,"busy_s":3,"steal_s":0.5,"want":1000,"got":1000,"extra":0,"least":100,"most":100,"bytes":129000,"reads":50,"wrong":0,"closed":0}`
	r, err := parseReading([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.cpuPerMessage(); got != 1500 {
		t.Errorf("%g µs a message, want 1500", got)
	}
	if got := r.messagesPerSecond(); got != 500 {
		t.Errorf("%g messages a second, want 500", got)
	}
	if got, want := r.shares(), (shares{Server: 0.75, Load: 0.5, Others: 0.25, Steal: 0.25}); got != want {
		t.Errorf("shares %+v, want %+v", got, want)
	}
	if err := r.problem(); err != nil {
		t.Errorf("a problem: %v", err)
	}
}

func TestParseReadingRejects(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"nothing":     ``,
		"cut off":     `{"mode":"fan","clients":10`,
		"no clients":  `{"mode":"fan","seconds":1}`,
		"no interval": `{"mode":"fan","clients":1}`,
		"no JSON":     `stalled`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := parseReading([]byte(line)); !errors.Is(err, errNoReading) {
				t.Errorf("error %v, want errNoReading", err)
			}
		})
	}
}

func TestSumTurns(t *testing.T) {
	t.Parallel()
	turns := []reading{
		{Mode: "fan", Clients: 5, Seconds: 1, ServerCPUS: 2, LoadCPUS: 3, RedisCPUS: 4, BusyS: 5, StealS: 6, Want: 10, Got: 10, Extra: 1, Wrong: 2,
			Closed: 3, Least: 2, Most: 2, Bytes: 100, Reads: 8, SpreadP50US: 30, SpreadP99US: 900, P50US: 1, P99US: 4, P999US: 8},
		{Mode: "fan", Clients: 5, Seconds: 2, ServerCPUS: 1, LoadCPUS: 1, RedisCPUS: 1, BusyS: 1, StealS: 1, Want: 20, Got: 19, Extra: 1, Wrong: 1,
			Closed: 1, Least: 3, Most: 4, Bytes: 200, Reads: 9, SpreadP50US: 10, SpreadP99US: 50, P50US: 2, P99US: 5, P999US: 7},
		{Mode: "fan", Clients: 5, Seconds: 3, SpreadP50US: 20, SpreadP99US: 70, P50US: 3, P99US: 600, P999US: 6},
	}
	want := reading{Mode: "fan", Clients: 5, Seconds: 6, ServerCPUS: 3, LoadCPUS: 4, RedisCPUS: 5, BusyS: 6, StealS: 7, Want: 30, Got: 29, Extra: 2,
		Wrong: 3, Closed: 4, Least: 5, Most: 6, Bytes: 300, Reads: 17, SpreadP50US: 20, SpreadP99US: 70, P50US: 2, P99US: 5, P999US: 7}
	if got := sumTurns(turns); got != want {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	alone := reading{Mode: "idle", Clients: 1, Seconds: 1, RSSKB: 7, redisReading: redisReading{Rooms: 3}}
	if got := sumTurns([]reading{alone}); got != alone {
		t.Errorf("of one turn: %+v, want %+v", got, alone)
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	whole := reading{Mode: "fan", Want: 10, Got: 10, Least: 5, Most: 5}
	for name, tc := range map[string]struct {
		change func(*reading)
		want   string
	}{
		"none":       {func(*reading) {}, ""},
		"lost":       {func(r *reading) { r.Got, r.Least = 7, 2 }, "3 of 10 messages lost\nclients received between 2 and 5 messages each"},
		"too many":   {func(r *reading) { r.Extra = 2 }, "2 extra messages"},
		"got past":   {func(r *reading) { r.Got = 14 }, "4 extra messages"},
		"swapped":    {func(r *reading) { r.Least, r.Most = 4, 6 }, "clients received between 4 and 6 messages each"},
		"wrong":      {func(r *reading) { r.Wrong = 1 }, "1 wrong messages"},
		"closed":     {func(r *reading) { r.Closed = 3 }, "3 connections closed"},
		"silence":    {func(r *reading) { *r = reading{Mode: "echo"} }, "no messages at all"},
		"quiet idle": {func(r *reading) { *r = reading{Mode: "idle"} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := whole
			tc.change(&r)
			got := ""
			if err := r.problem(); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestBound(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		shares shares
		want   string
		nodes  int // 0: one
	}{
		"the server":       {shares{Server: 0.98, Load: 0.4}, boundServer, 0},
		"both":             {shares{Server: 0.98, Load: 0.97}, boundServer, 0},
		"several loops":    {shares{Server: 1.8, Load: 0.95}, boundServer, 0},
		"the load":         {shares{Server: 0.5, Load: 0.97}, boundLoad, 0},
		"the pace":         {shares{Server: 0.3, Load: 0.2}, boundPace, 0},
		"another process":  {shares{Server: 0.6, Load: 0.6, Others: 0.8}, boundPace, 0},
		"both nodes":       {shares{Server: 1.85, Redis: 0.1}, boundServer, 2},
		"redis":            {shares{Server: 0.9, Redis: 0.95}, boundRedis, 2},
		"all together":     {shares{Server: 0.8, Load: 0.6, Redis: 0.5}, boundMachine, 0},
		"none, with redis": {shares{Server: 0.8, Load: 0.3, Redis: 0.3}, boundPace, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := tc.shares.bound(max(1, tc.nodes), 2); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestResultString(t *testing.T) {
	t.Parallel()
	r := result{Measure: "steady", Server: "limit", Figures: map[string]float64{"cpu_us": 6.543}}
	if got, want := r.String(), "steady          limit      6.54 CPU µs/delivery"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Error = "3 messages lost\n1 connections closed"
	if got := r.String(); !strings.HasSuffix(got, "FAILED: 3 messages lost; 1 connections closed") {
		t.Errorf("got %q", got)
	}
}
