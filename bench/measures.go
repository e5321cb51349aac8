package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// The servers, in the order of the table.
const (
	serverHearth    = "hearth"     // through net/http
	serverHearthRaw = "hearth-raw" // through Server.Serve, on its own listener
	serverRef       = "ref"        // the reference on Bun
	serverLimit     = "limit"      // the bare C server
)

func serverNames() []string {
	return []string{serverHearth, serverHearthRaw, serverRef, serverLimit}
}

// A measure is one way to drive a server, and the figures that result.
type measure struct {
	name  string
	mode  string // of the load generator
	full  load
	check load // the smaller load of -check
	// the servers that take part; nil: all except hearth-raw, which differs only in how clients
	// connect
	servers []string
	redis   bool // the servers are connected to Redis
	sealed  bool // the servers offer encryption
	nodes   int  // servers of each kind, on one Redis; 0: one
	figures []figure
}

// load holds the parameters of the load generator, apart from the mode. They are per turn if there
// are several.
type load struct {
	clients  int
	messages int
	refs     int // messages for the reference, if it is too slow for all; 0: the same
	rate     int // messages per second; 0: as fast as clients read
	// messages per flush, if rate is 0; 0: the server decides; held: messages on their way at once
	batch   int
	rooms   int     // rooms to join and leave
	sealed  int     // encrypted clients: the last ones
	kept    int     // encrypted clients whose messages are all decrypted afterwards
	turns   int     // turns that count; 0: each server is measured in one piece
	seconds float64 // length of echo, and of a step of rate; the longest time for fan
	settle  float64 // seconds of silence before the phase; idle: before memory is read
}

// of returns the load for one server.
func (l load) of(server string) load {
	if server == serverRef && l.refs > 0 {
		l.messages = l.refs
	}
	if server == serverLimit {
		l.kept = 0 // it does not encrypt
	}
	return l
}

func (l load) args(mode string, verify bool) []string {
	args := []string{
		"-mode", mode,
		"-clients", strconv.Itoa(l.clients),
		"-seconds", strconv.FormatFloat(l.seconds, 'g', -1, 64),
		"-settle", strconv.FormatFloat(l.settle, 'g', -1, 64),
	}
	if l.messages > 0 {
		args = append(args, "-size", strconv.Itoa(messageSize), "-messages", strconv.Itoa(l.messages))
	}
	if mode == "fan" || l.rate > 0 || l.batch > 0 {
		args = append(args, "-rate", strconv.Itoa(l.rate), "-batch", strconv.Itoa(l.batch))
	}
	if l.rooms > 0 {
		args = append(args, "-rooms", strconv.Itoa(l.rooms))
	}
	if mode == "rate" {
		args = append(args, "-budget-us", strconv.Itoa(int(latencyBudget.Microseconds())))
	}
	if verify {
		args = append(args, "-verify", "1")
	}
	if l.turns > 0 {
		args = append(args, "-turns", "1")
	}
	return args
}

// limit returns the time after which a silent load generator is stopped.
func (l load) limit() time.Duration {
	return time.Duration((l.seconds+2*l.settle)*float64(time.Second)) + 90*time.Second
}

// latencyBudget is the p99 up to which a server keeps up with a rate.
const latencyBudget = 50 * time.Millisecond

// messageSize is the length of the padding of a published message, in bytes.
const messageSize = 100

// A figure is a number computed from a reading.
type figure struct {
	key     string // in the results
	name    string // in the table, with its unit
	of      func(reading) float64
	alone   bool // has a meaning only without a ratio
	targets []target
}

// A target is the wanted value of a server's figure, as a multiple of another server's in the same
// round.
type target struct {
	server, against string
	bound           float64
	atLeast         bool // the ratio should be at least bound; otherwise at most
}

func (t target) String() string {
	sign := "≤"
	if t.atLeast {
		sign = "≥"
	}
	return fmt.Sprintf("%s%g", sign, t.bound)
}

func (t target) metBy(ratio float64) bool {
	if t.atLeast {
		return ratio >= t.bound
	}
	return ratio <= t.bound
}

func atMost(against string, bound float64) target {
	return target{server: serverHearth, against: against, bound: bound}
}

func cpuPerDelivery(ref, limit float64) figure {
	return figure{key: "cpu_us", name: "CPU µs/delivery", of: reading.cpuPerMessage,
		targets: []target{atMost(serverRef, ref), atMost(serverLimit, limit)}}
}

var deliveriesPerSecond = figure{key: "per_s", name: "deliveries/s", of: reading.messagesPerSecond}

// measures is everything that can be measured, in the order in which it is.
var measures = slices.Concat(plainMeasures, sealedMeasures, redisMeasures)

// plainMeasures are those of one server by itself.
var plainMeasures = []measure{
	{
		name: "steady", mode: "fan",
		full:    load{clients: 1000, turns: 10, messages: 50, rate: 50, seconds: 20, settle: 0.7},
		check:   load{clients: 50, turns: 2, messages: 20, rate: 100, seconds: 60, settle: 0.1},
		figures: []figure{cpuPerDelivery(0.95, 1.15)},
	},
	{
		name: "single", mode: "fan",
		full:    load{clients: 1000, turns: 10, messages: 150, batch: 1, seconds: 40, settle: 0.7},
		check:   load{clients: 50, turns: 2, messages: 50, batch: 1, seconds: 60, settle: 0.1},
		figures: []figure{cpuPerDelivery(0.95, 1.15), deliveriesPerSecond},
	},
	{
		name: "burst", mode: "fan",
		full:    load{clients: 1000, turns: 10, messages: 3000, batch: 64, seconds: 40, settle: 0.7},
		check:   load{clients: 50, turns: 2, messages: 1000, batch: 64, seconds: 60, settle: 0.1},
		figures: []figure{cpuPerDelivery(0.5, 1.25), deliveriesPerSecond},
	},
	{
		name: "free", mode: "fan",
		full:  load{clients: 1000, turns: 10, messages: 4000, batch: 0, seconds: 40, settle: 0.7},
		check: load{clients: 50, turns: 2, messages: 2000, batch: 0, seconds: 60, settle: 0.1},
		figures: []figure{
			{key: "per_s", name: "deliveries/s", of: reading.messagesPerSecond, targets: []target{
				{server: serverHearth, against: serverRef, bound: 4, atLeast: true}}},
			{key: "cpu_us", name: "CPU µs/delivery", of: reading.cpuPerMessage},
		},
	},
	{
		name: "echo", mode: "echo",
		full:  load{clients: 200, turns: 10, seconds: 0.5, settle: 0.7},
		check: load{clients: 20, turns: 2, seconds: 0.1, settle: 0.1},
		figures: []figure{
			{key: "cpu_us", name: "CPU µs/round trip", of: reading.cpuPerMessage,
				targets: []target{atMost(serverRef, 0.9), atMost(serverLimit, 1.3)}},
			{key: "p99_us", name: "p99 µs", of: func(r reading) float64 { return r.P99US },
				targets: []target{atMost(serverRef, 1)}},
			{key: "per_s", name: "round trips/s", of: reading.messagesPerSecond},
		},
	},
	{
		name: "idle", mode: "idle", servers: serverNames(),
		full:  load{clients: 10000, seconds: 1, settle: 5},
		check: load{clients: 200, seconds: 1, settle: 0.2},
		figures: []figure{
			{key: "rss", name: "RSS bytes/client", of: func(r reading) float64 { return r.perClient(r.RSSKB - r.RSSBeforeKB) },
				targets: []target{atMost(serverRef, 0.3)}},
			{key: "anon", name: "anonymous bytes/client", of: func(r reading) float64 { return r.perClient(r.AnonKB - r.AnonBeforeKB) }},
			{key: "rss_collected", name: "RSS bytes/client, collected",
				of: func(r reading) float64 { return r.perClient(r.RSSCollectedKB - r.RSSBeforeKB) }},
			{key: "cpu_share", name: "CPU of a core, idle", of: func(r reading) float64 { return r.ServerCPUS / r.Seconds }},
		},
	},
	{
		name: "connects", mode: "connect", servers: serverNames(),
		full:  load{clients: 10000, seconds: 1},
		check: load{clients: 200, seconds: 1},
		figures: []figure{
			{key: "cpu_us", name: "CPU µs/connect", of: func(r reading) float64 { return r.ServerCPUS * 1e6 / float64(r.Clients) },
				targets: []target{atMost(serverRef, 1.35), {server: serverHearthRaw, against: serverRef, bound: 0.75}}},
			{key: "per_s", name: "connects/s", of: func(r reading) float64 { return float64(r.Clients) / r.Seconds }},
		},
	},
}

func measureNames() []string {
	var names []string
	for _, m := range measures {
		names = append(names, m.name)
	}
	return names
}

// serversOf keeps those of servers that take part in m.
func (m measure) serversOf(servers []string) []string {
	partners := m.servers
	if partners == nil {
		partners = []string{serverHearth, serverRef, serverLimit}
	}
	return slices.DeleteFunc(slices.Clone(servers), func(s string) bool { return !slices.Contains(partners, s) })
}

// groups splits servers into those that are measured side by side: all of them where they take
// turns.
func (m measure) groups(servers []string) [][]string {
	if m.full.turns > 0 {
		return [][]string{servers}
	}
	return slices.Collect(slices.Chunk(servers, 1))
}

// withoutTargets is measures for a run whose figures mean nothing.
func withoutTargets(measures []measure) []measure {
	plain := slices.Clone(measures)
	for i := range plain {
		plain[i].figures = slices.Clone(plain[i].figures)
		for j := range plain[i].figures {
			plain[i].figures[j].targets = nil
		}
	}
	return plain
}

// size is the load for a full run or a check.
func (m measure) size(check bool) load {
	if check {
		return m.check
	}
	return m.full
}
