package main

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A reading is what the load generator measured in one turn, or in all turns that count. Fields
// that a mode does not use are zero.
type reading struct {
	Mode    string `json:"mode"`
	Clients int    `json:"clients"`

	// The measured interval: its length, and the CPU time of the servers together, the load
	// generator, Redis, and the whole machine (from /proc/stat, in ticks), in seconds. StealS is
	// the time that the hypervisor gave to other machines.
	Seconds    float64 `json:"seconds"`
	ServerCPUS float64 `json:"server_cpu_s"`
	LoadCPUS   float64 `json:"load_cpu_s"`
	RedisCPUS  float64 `json:"redis_cpu_s"`
	BusyS      float64 `json:"busy_s"`
	StealS     float64 `json:"steal_s"`

	// The connects and authentications of all clients; in mode connect, the measured interval
	// itself.
	ConnectSeconds float64 `json:"connect_seconds"`
	ConnectCPUS    float64 `json:"connect_cpu_s"`

	// Messages (fan: deliveries; echo: answers). Wrong ones were not expected or had wrong content;
	// extra ones came after the last expected one. Closed counts lost connections and close frames.
	Want   int64 `json:"want,omitempty"`
	Got    int64 `json:"got,omitempty"`
	Extra  int64 `json:"extra,omitempty"`
	Wrong  int64 `json:"wrong"`
	Closed int64 `json:"closed"`

	// fan: the fewest and most messages of a client, payload bytes, the reads that returned them,
	// and, if paced, the time that a message took from its first client to its last.
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

	// idle: the server's memory before the clients connected, after they were quiet, and after a
	// garbage collection; and the kernel's slab memory, which includes both ends of every socket.
	RSSBeforeKB     int64 `json:"rss_before_kb,omitempty"`
	RSSKB           int64 `json:"rss_kb,omitempty"`
	RSSCollectedKB  int64 `json:"rss_collected_kb,omitempty"`
	AnonBeforeKB    int64 `json:"anon_before_kb,omitempty"`
	AnonKB          int64 `json:"anon_kb,omitempty"`
	AnonCollectedKB int64 `json:"anon_collected_kb,omitempty"`
	SlabBeforeKB    int64 `json:"slab_before_kb,omitempty"`
	SlabKB          int64 `json:"slab_kb,omitempty"`

	redisReading
	sealedReading
}

// For the measures with Redis only.
type redisReading struct {
	// held, elsewhere: messages given to Redis, the connections that received them, and the CPU of
	// the idle server, in cores.
	Published    int64   `json:"published,omitempty"`
	Receivers    int64   `json:"receivers,omitempty"`
	IdleCPUShare float64 `json:"idle_cpu_share,omitempty"`

	// rate: the highest rate with bounded latency and the lowest without, in messages per second;
	// the messages lost above it; and the CPU, above that of idling, of the node that has the
	// clients and of the node that has none, for Want messages at an ordinary rate. The measured
	// interval is that of the rate that was too high.
	BestRate       float64 `json:"best_rate,omitempty"`
	BestP50US      float64 `json:"best_p50_us,omitempty"`
	BestP99US      float64 `json:"best_p99_us,omitempty"`
	BrokenRate     float64 `json:"broken_rate,omitempty"`
	BrokenP99US    float64 `json:"broken_p99_us,omitempty"`
	LostOverloaded int64   `json:"lost_overloaded,omitempty"`
	HeldCPUS       float64 `json:"held_cpu_s,omitempty"`
	ElsewhereCPUS  float64 `json:"elsewhere_cpu_s,omitempty"`

	// rooms: their number; the time and the server's CPU until the last was joined, and left; the
	// channels with subscribers in Redis before, with all rooms joined, and at the end, and the
	// time until the end.
	Rooms              int64   `json:"rooms,omitempty"`
	JoinSeconds        float64 `json:"join_seconds,omitempty"`
	JoinCPUS           float64 `json:"join_cpu_s,omitempty"`
	LeaveSeconds       float64 `json:"leave_seconds,omitempty"`
	LeaveCPUS          float64 `json:"leave_cpu_s,omitempty"`
	ChannelsBefore     int64   `json:"channels_before,omitempty"`
	Channels           int64   `json:"channels,omitempty"`
	ChannelsAfter      int64   `json:"channels_after,omitempty"`
	UnsubscribeSeconds float64 `json:"unsubscribe_seconds,omitempty"`
}

// For the measures with encryption only.
type sealedReading struct {
	// AESUS is the cost of the encryption of one message alone, in microseconds. This process
	// measures it, together with the limit server, which does not encrypt.
	AESUS float64 `json:"aes_us,omitempty"`

	// mixed: the latency of the unencrypted clients before encrypted ones connected.
	AloneP50US float64 `json:"alone_p50_us,omitempty"`
	AloneP99US float64 `json:"alone_p99_us,omitempty"`

	// Opened is the number of clients whose messages were decrypted and correct. Reordered messages
	// arrived before one that was sent earlier.
	Opened    int64 `json:"opened,omitempty"`
	Reordered int64 `json:"reordered,omitempty"`
}

var errNoReading = errors.New("no reading")

// parseReading parses a line of JSON from the load generator.
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

// sumTurns makes one reading of several turns. It adds up counts, times and CPU. For latencies and
// spreads it takes the median of the turns' percentiles, so that a disturbance of one turn does not
// become the p99 of all. Other fields are those of the first turn: modes that use them do not take
// turns.
func sumTurns(turns []reading) reading {
	sum := turns[0]
	for _, t := range turns[1:] {
		sum.Seconds += t.Seconds
		sum.ServerCPUS += t.ServerCPUS
		sum.LoadCPUS += t.LoadCPUS
		sum.RedisCPUS += t.RedisCPUS
		sum.BusyS += t.BusyS
		sum.StealS += t.StealS
		sum.Want += t.Want
		sum.Got += t.Got
		sum.Extra += t.Extra
		sum.Wrong += t.Wrong
		sum.Closed += t.Closed
		sum.Least += t.Least
		sum.Most += t.Most
		sum.Bytes += t.Bytes
		sum.Reads += t.Reads
	}
	for _, of := range []func(*reading) *float64{
		func(r *reading) *float64 { return &r.SpreadP50US },
		func(r *reading) *float64 { return &r.SpreadP99US },
		func(r *reading) *float64 { return &r.P50US },
		func(r *reading) *float64 { return &r.P99US },
		func(r *reading) *float64 { return &r.P999US },
	} {
		var values []float64
		for i := range turns {
			values = append(values, *of(&turns[i]))
		}
		*of(&sum) = newSpread(values).Median
	}
	return sum
}

// problem returns the error that makes the reading worthless, or nil if every expected message
// arrived once.
func (r reading) problem() error {
	var found []error
	if lost := r.Want - r.Got; lost > 0 {
		found = append(found, fmt.Errorf("%d of %d messages lost", lost, r.Want))
	}
	if r.Extra > 0 || r.Got > r.Want {
		found = append(found, fmt.Errorf("%d extra messages", max(r.Extra, r.Got-r.Want)))
	}
	if r.Most > 0 && r.Least != r.Most {
		found = append(found, fmt.Errorf("clients received between %d and %d messages each", r.Least, r.Most))
	}
	if r.Wrong > 0 {
		found = append(found, fmt.Errorf("%d wrong messages", r.Wrong))
	}
	if r.Closed > 0 {
		found = append(found, fmt.Errorf("%d connections closed", r.Closed))
	}
	if r.Mode != "connect" && r.Mode != "idle" && r.Got == 0 {
		found = append(found, errors.New("no messages at all"))
	}
	if r.ChannelsAfter > r.ChannelsBefore {
		found = append(found, fmt.Errorf("%d subscriptions left behind in Redis", r.ChannelsAfter-r.ChannelsBefore))
	}
	if r.Mode == "rate" && r.BestRate == 0 {
		found = append(found, fmt.Errorf("latency was not bounded at any rate: p99 is %.0f µs at %.0f messages a second", r.BrokenP99US, r.BrokenRate))
	}
	return errors.Join(found...)
}

func (r reading) cpuPerMessage() float64     { return r.ServerCPUS * 1e6 / float64(r.Got) }
func (r reading) messagesPerSecond() float64 { return float64(r.Got) / r.Seconds }
func (r reading) perClient(kb int64) float64 { return float64(kb) * 1024 / float64(r.Clients) }

// cpuBeyondIdle returns the CPU per published message above that of the idle server, in
// microseconds, and at least 0.
func (r reading) cpuBeyondIdle() float64 {
	return max(0, r.ServerCPUS-r.IdleCPUShare*r.Seconds) * 1e6 / float64(r.Published)
}

// shares holds the CPU use per process during the measured interval, in cores.
type shares struct {
	Server float64 `json:"server"` // all nodes together
	Load   float64 `json:"load"`
	Redis  float64 `json:"redis,omitempty"`
	Others float64 `json:"others"` // all other processes, and kernel time of no process
	Steal  float64 `json:"steal"`
}

func (r reading) shares() shares {
	return shares{
		Server: r.ServerCPUS / r.Seconds,
		Load:   r.LoadCPUS / r.Seconds,
		Redis:  r.RedisCPUS / r.Seconds,
		Others: max(0, r.BusyS-r.ServerCPUS-r.LoadCPUS-r.RedisCPUS) / r.Seconds,
		Steal:  r.StealS / r.Seconds,
	}
}

// The limits of a run's speed.
const (
	boundServer = "server" // used its core up: its speed was measured
	// the load generator used its core up: rates are its own, CPU per operation is the server's
	boundLoad    = "load"
	boundRedis   = "redis"   // Redis used its core up: the same
	boundMachine = "machine" // the processes together used the machine up
	boundPace    = "pace"    // none: the measure sets the pace
)

// bound returns what limited the speed, for a number of nodes and cores.
func (s shares) bound(nodes, cores int) string {
	const usedUp = 0.9 // of a core: busy processes share caches and a kernel, so none reaches 1
	switch {
	case s.Server >= usedUp*float64(nodes):
		return boundServer
	case s.Load >= usedUp:
		return boundLoad
	case s.Redis >= usedUp:
		return boundRedis
	case s.Redis > 0 && s.Server+s.Load+s.Redis+s.Others+s.Steal >= usedUp*float64(cores):
		return boundMachine
	default:
		return boundPace
	}
}
