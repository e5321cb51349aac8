package main

var hearthAndRef = []string{serverHearth, serverRef}

// redisMeasures are those of servers on Redis. The publisher is the load generator's own.
var redisMeasures = []measure{
	{
		name: "redis-held", mode: "held", servers: hearthAndRef, redis: true,
		full:  load{clients: 1, messages: 400_000, batch: 4096, seconds: 40, settle: 0.7},
		check: load{clients: 3, messages: 5000, batch: 256, seconds: 60, settle: 0.1},
		figures: []figure{
			{key: "cpu_us", name: "CPU µs/message", of: func(r reading) float64 { return r.ServerCPUS * 1e6 / float64(r.Published) },
				targets: []target{atMost(serverRef, 0.4)}},
			{key: "per_s", name: "messages/s", of: func(r reading) float64 { return float64(r.Published) / r.Seconds }},
		},
	},
	{
		name: "redis-elsewhere", mode: "elsewhere", servers: hearthAndRef, redis: true,
		full:  load{clients: 100, messages: 1_000_000, refs: 400_000, seconds: 40, settle: 1},
		check: load{clients: 3, messages: 20_000, seconds: 60, settle: 0.2},
		figures: []figure{
			{key: "cpu_us", name: "CPU µs/message", of: reading.cpuBeyondIdle, targets: []target{atMost(serverRef, 0.02)}},
			{key: "per_s", name: "messages/s", of: func(r reading) float64 { return float64(r.Published) / r.Seconds }},
		},
	},
	{
		name: "redis-rate", mode: "rate", servers: hearthAndRef, redis: true, nodes: 2,
		full:  load{clients: 10_000, rate: 10_000, messages: 1, seconds: 1.2, settle: 1},
		check: load{clients: 20, rate: 500, messages: 1, seconds: 0.1, settle: 0.1},
		figures: []figure{
			{key: "per_s", name: "messages/s, p99 ≤ " + latencyBudget.String(), of: func(r reading) float64 { return r.BestRate },
				targets: []target{{server: serverHearth, against: serverRef, bound: 1, atLeast: true}}},
			{key: "p99_us", name: "p99 µs at that rate", of: func(r reading) float64 { return r.BestP99US }},
			{key: "held_us", name: "CPU µs/message, held here", of: func(r reading) float64 { return r.HeldCPUS * 1e6 / float64(r.Want) }},
			{key: "elsewhere_us", name: "CPU µs/message, held elsewhere",
				of: func(r reading) float64 { return max(0, r.ElsewhereCPUS) * 1e6 / float64(r.Want) }},
		},
	},
	{
		name: "rooms", mode: "rooms", servers: hearthAndRef, redis: true,
		full:  load{clients: 100, rooms: 100_000, messages: 1, seconds: 40, settle: 1},
		check: load{clients: 10, rooms: 1000, messages: 1, seconds: 60, settle: 0.1},
		figures: []figure{
			{key: "joins", name: "joins/s", of: func(r reading) float64 { return float64(r.Rooms) / r.JoinSeconds }},
			{key: "join_us", name: "CPU µs/join", of: func(r reading) float64 { return r.JoinCPUS * 1e6 / float64(r.Rooms) }},
			{key: "leaves", name: "leaves/s", of: func(r reading) float64 { return float64(r.Rooms) / r.LeaveSeconds }},
			{key: "leave_us", name: "CPU µs/leave", of: func(r reading) float64 { return r.LeaveCPUS * 1e6 / float64(r.Rooms) }},
			{key: "rss", name: "RSS bytes/room", of: func(r reading) float64 { return float64(r.RSSKB-r.RSSBeforeKB) * 1024 / float64(r.Rooms) }},
			{key: "rss_left", name: "RSS bytes/room, left behind",
				of: func(r reading) float64 { return float64(r.RSSCollectedKB-r.RSSBeforeKB) * 1024 / float64(r.Rooms) }},
			{key: "channels", name: "channels in Redis, joined", alone: true, of: func(r reading) float64 { return float64(r.Channels) }},
			{key: "channels_left", name: "channels in Redis, left", alone: true, of: func(r reading) float64 { return float64(r.ChannelsAfter) }},
			{key: "unsubscribe_s", name: "s until unsubscribed", alone: true, of: func(r reading) float64 { return r.UnsubscribeSeconds }},
		},
	},
}
