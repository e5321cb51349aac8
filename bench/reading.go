package main

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A reading is what the load generator saw in one run. Fields that a mode does not have are zero.
type reading struct {
	Mode    string `json:"mode"`
	Clients int    `json:"clients"`

	// The measured interval: its length, and the CPU that it cost the server, the load generator, and the whole
	// machine (from /proc/stat, in ticks), in seconds. StealS is what a hypervisor kept for others.
	Seconds    float64 `json:"seconds"`
	ServerCPUS float64 `json:"server_cpu_s"`
	LoadCPUS   float64 `json:"load_cpu_s"`
	BusyS      float64 `json:"busy_s"`
	StealS     float64 `json:"steal_s"`

	// Connecting and authenticating all clients; the measured interval itself in mode connect.
	ConnectSeconds float64 `json:"connect_seconds"`
	ConnectCPUS    float64 `json:"connect_cpu_s"`

	// Messages (fan: deliveries; echo: answers). Wrong ones were not asked for or are not what was asked for, extra
	// ones came after all. Closed counts connections and close frames.
	Want   int64 `json:"want,omitempty"`
	Got    int64 `json:"got,omitempty"`
	Extra  int64 `json:"extra,omitempty"`
	Wrong  int64 `json:"wrong"`
	Closed int64 `json:"closed"`

	// fan: what the clients with the fewest and the most messages got, payload bytes, reads that returned them, and,
	// when paced, how long a message took from its first client to its last.
	Least       int64   `json:"least,omitempty"`
	Most        int64   `json:"most,omitempty"`
	Bytes       int64   `json:"bytes,omitempty"`
	Reads       int64   `json:"reads,omitempty"`
	SpreadP50US float64 `json:"spread_p50_us,omitempty"`
	SpreadP99US float64 `json:"spread_p99_us,omitempty"`

	// echo: round trips in microseconds.
	P50US  float64 `json:"p50_us,omitempty"`
	P99US  float64 `json:"p99_us,omitempty"`
	P999US float64 `json:"p999_us,omitempty"`

	// idle: the server's memory before anyone came, settled, and after it was asked to collect; the kernel's slab,
	// which holds both ends of every socket.
	RSSBeforeKB     int64 `json:"rss_before_kb,omitempty"`
	RSSKB           int64 `json:"rss_kb,omitempty"`
	RSSCollectedKB  int64 `json:"rss_collected_kb,omitempty"`
	AnonBeforeKB    int64 `json:"anon_before_kb,omitempty"`
	AnonKB          int64 `json:"anon_kb,omitempty"`
	AnonCollectedKB int64 `json:"anon_collected_kb,omitempty"`
	SlabBeforeKB    int64 `json:"slab_before_kb,omitempty"`
	SlabKB          int64 `json:"slab_kb,omitempty"`
}

var errNoReading = errors.New("no reading")

// parseReading reads the line of JSON that the load generator ends with.
func parseReading(line []byte) (reading, error) {
	var r reading
	if err := json.Unmarshal(line, &r); err != nil {
		return reading{}, fmt.Errorf("%w: %w", errNoReading, err)
	}
	if r.Clients <= 0 || r.Seconds <= 0 {
		return reading{}, fmt.Errorf("%w: %d clients in %g seconds", errNoReading, r.Clients, r.Seconds)
	}
	return r, nil
}

// problem says what the server did that makes the reading worthless: nil when everything asked for came, once.
func (r reading) problem() error {
	var found []error
	if lost := r.Want - r.Got; lost > 0 {
		found = append(found, fmt.Errorf("%d of %d messages lost", lost, r.Want))
	}
	if r.Extra > 0 || r.Got > r.Want {
		found = append(found, fmt.Errorf("%d messages too many", max(r.Extra, r.Got-r.Want)))
	}
	if r.Most > 0 && r.Least != r.Most {
		found = append(found, fmt.Errorf("clients got between %d and %d messages each", r.Least, r.Most))
	}
	if r.Wrong > 0 {
		found = append(found, fmt.Errorf("%d messages wrong", r.Wrong))
	}
	if r.Closed > 0 {
		found = append(found, fmt.Errorf("%d connections closed", r.Closed))
	}
	if r.Mode != "connect" && r.Mode != "idle" && r.Got == 0 {
		found = append(found, errors.New("no messages at all"))
	}
	return errors.Join(found...)
}

func (r reading) cpuPerMessage() float64     { return r.ServerCPUS * 1e6 / float64(r.Got) }
func (r reading) messagesPerSecond() float64 { return float64(r.Got) / r.Seconds }
func (r reading) perClient(kb int64) float64 { return float64(kb) * 1024 / float64(r.Clients) }

// shares says who used the CPU during the measured interval, in cores.
type shares struct {
	Server float64 `json:"server"`
	Load   float64 `json:"load"`
	Others float64 `json:"others"` // every other process of the machine, and what the kernel charges to nobody
	Steal  float64 `json:"steal"`
}

func (r reading) shares() shares {
	return shares{
		Server: r.ServerCPUS / r.Seconds,
		Load:   r.LoadCPUS / r.Seconds,
		Others: max(0, r.BusyS-r.ServerCPUS-r.LoadCPUS) / r.Seconds,
		Steal:  r.StealS / r.Seconds,
	}
}

// What kept a run from being faster.
const (
	boundServer = "server" // used its core up: its speed is what was measured
	boundLoad   = "load"   // the load generator used its core up: rates are its own, CPU per operation still the server's
	boundPace   = "pace"   // neither: the measure sets the pace
)

// bound tells whose speed a rate is.
func (s shares) bound() string {
	const usedUp = 0.9 // of a core; the two share caches and a kernel, and neither gets to 1
	switch {
	case s.Server >= usedUp:
		return boundServer
	case s.Load >= usedUp:
		return boundLoad
	default:
		return boundPace
	}
}
