package main

// sealedMeasures are the measures with encrypted clients. The limit server sends as many bytes and
// does not encrypt; the cost of AES-GCM is added to its CPU.
var sealedMeasures = []measure{
	{
		name: "sealed", mode: "fan", sealed: true,
		full:  load{clients: 1000, sealed: 1000, kept: 3, messages: 4000, refs: 200, batch: 64, seconds: 40, settle: 0.7},
		check: load{clients: 20, sealed: 20, kept: 20, messages: 300, batch: 64, seconds: 60, settle: 0.1},
		figures: []figure{
			{key: "cpu_us", name: "CPU µs/delivery", of: func(r reading) float64 { return r.cpuPerMessage() + r.AESUS },
				targets: []target{atMost(serverRef, 0.05), atMost(serverLimit, 2)}},
			{key: "per_s", name: "deliveries/s", of: reading.messagesPerSecond,
				targets: []target{{server: serverHearth, against: serverRef, bound: 20, atLeast: true}}},
		},
	},
	{
		name: "sealed-mixed", mode: "mixed", sealed: true, servers: hearthAndRef,
		full:  load{clients: 1000, sealed: 800, kept: 3, messages: 100, rate: 20, seconds: 40, settle: 0.7},
		check: load{clients: 20, sealed: 10, kept: 10, messages: 20, rate: 100, seconds: 60, settle: 0.1},
		figures: []figure{
			{key: "p99_us", name: "p99 µs unencrypted", of: func(r reading) float64 { return r.P99US }},
			{key: "alone_us", name: "p99 µs unencrypted, alone", of: func(r reading) float64 { return r.AloneP99US }},
			{key: "p99_times", name: "p99, times alone", alone: true, of: func(r reading) float64 { return r.P99US / r.AloneP99US }},
		},
	},
}
