package main

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOptionsThatAreRejected(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":          {[]string{"-fast"}, "flag provided but not defined: -fast"},
		"argument":              {[]string{"inflate"}, `unexpected argument "inflate"`},
		"option of serve":       {[]string{"-run", "logs", "serve", "--loops"}, `unexpected argument "serve"`},
		"no rounds":             {[]string{"-rounds", "0"}, "-rounds 0: at least 1"},
		"no regular expression": {[]string{"-run", "("}, "-run: error parsing regexp"},
		"no such attack":        {[]string{"-run", "nothing"}, `no attack matches -run "nothing"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), tc.args, &stdout, &stderr); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr.String(), tc.want) || stdout.Len() > 0 {
				t.Errorf("printed %q, and %q; want %q", stdout.String(), stderr.String(), tc.want)
			}
		})
	}
}

func TestOptionsOfTheServer(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-rounds", "3", "--", "--transport", "netconn"}, io.Discard)
	if err != nil || o.rounds != 3 || !slices.Equal(o.serve, []string{"--transport", "netconn"}) {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestHelpAndList(t *testing.T) {
	t.Parallel()
	var help, list bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &help, &help); code != exitOK {
		t.Errorf("exit code %d of --help", code)
	}
	for _, word := range []string{"-binary", "-run", "-rounds", "-json", "-list", "exit code", "127.0.0.1"} {
		if !strings.Contains(help.String(), word) {
			t.Errorf("help says nothing of %s", word)
		}
	}
	if code := run(t.Context(), []string{"-list", "-run", "^fro"}, &list, &list); code != exitOK {
		t.Errorf("exit code %d of -list", code)
	}
	if lines := strings.Split(strings.TrimSpace(list.String()), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[0], "frozen-node ") {
		t.Errorf("listed %q", lines)
	}
}

func TestRowsOfRounds(t *testing.T) {
	t.Parallel()
	round := func(latency, count, handled float64) []figure {
		return []figure{
			{name: "latency", value: latency, unit: "ms", target: atMost(10), typical: true},
			{name: "count", value: count, target: atMost(0)},
			{name: "handled", value: handled, target: atLeast(100)},
			{name: "no target", value: 7, typical: true},
		}
	}
	rows := joinRounds("a", [][]figure{round(9, 0, 100), round(50, 2, 99), round(1, 1, 100), round(10.5, 0, 100)})
	for i, want := range []row{
		{Figure: "latency", Value: 9.75, Met: true, Target: "≤ 10 ms"},
		{Figure: "count", Value: 2, Met: false, Target: "≤ 0"},
		{Figure: "handled", Value: 99, Met: false, Target: "≥ 100"},
		{Figure: "no target", Value: 7, Met: true},
	} {
		got := rows[i]
		if got.Figure != want.Figure || got.Value != want.Value || got.Met != want.Met || got.Target != want.Target || len(got.Values) != 4 {
			t.Errorf("row %d is %+v, want %+v", i, got, want)
		}
	}
	var line bytes.Buffer
	rows[1].print(&line)
	if got := strings.Join(strings.Fields(line.String()), " "); got != "a count 2 [0–2] ≤ 0 MISSED" {
		t.Errorf("printed %q", got)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var s samples
	for i := range 100 {
		s = append(s, time.Duration(i+1)*time.Millisecond)
	}
	rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	for p, want := range map[int]float64{50: 50, 99: 99, 100: 100, 1: 1, 0: 1} {
		if got := s.percentile(p); got != want {
			t.Errorf("p%d is %v, want %v", p, got, want)
		}
	}
	if got := samples(nil).percentile(50); got != 0 {
		t.Errorf("p50 of nothing is %v", got)
	}
}

func TestFramesOfTheSameSizeInflate(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16_000, 131_021} {
		b, err := inflating(size)
		if err != nil {
			t.Fatal(err)
		}
		if b[0] != final|compressed|opText || len(b) > 200 {
			t.Errorf("a frame of %d bytes begins with %#x", len(b), b[0])
		}
		head := 6
		if b[1] == 0x80|126 {
			head = 8
		}
		key, payload := b[head-4:head], bytes.Clone(b[head:])
		for i := range payload {
			payload[i] ^= key[i%4]
		}
		text, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
		if err != nil || len(text) != size || !bytes.HasPrefix(text, []byte(`{"event":"x","data":"aaa`)) || !bytes.HasSuffix(text, []byte(`aaa"}`)) {
			t.Errorf("inflates to %d bytes, want %d: %v", len(text), size, err)
		}
	}
}

func TestParseSockets(t *testing.T) {
	t.Parallel()
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0200007F:C350 01 00000000:0000002A 00:00000000 00000000     0        0 4243 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:1F90 0200007F:C351 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000
  nonsense
`
	got := parseSockets([]byte(table))
	if len(got) != 3 {
		t.Fatalf("found %d sockets: %v", len(got), got)
	}
	if k := got[1]; k.local.String() != "127.0.0.1:8080" || k.remote.String() != "127.0.0.2:50000" || k.unread != 42 || !k.owned {
		t.Errorf("the second is %+v", k)
	}
	if got[2].owned {
		t.Error("a socket that waits is no process's")
	}
}

func TestLogCounterCountsLinesInAnyPieces(t *testing.T) {
	t.Parallel()
	text := `{"level":"INFO","msg":"not handled","messages":3}` + "\n" + `{"msg":"were discarded","discarded":4,"unhandled":9}` + "\n" +
		`{"msg":"not handled","client":"x"}` + "\n" + `{"msg":"b","messages":100}` + "\nno JSON\n"
	for size := 1; size <= len(text); size++ {
		l := newLogCounter()
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if wrote, err := l.Write([]byte(rest[:n])); wrote != n || err != nil {
				t.Fatalf("Write: %d, %v", wrote, err)
			}
			rest = rest[n:]
		}
		message, most := l.most()
		if l.lines() != 5 || message != "not handled" || most != 2 || l.droppedMessages() != 7 {
			t.Errorf("pieces of %d: %d lines, %d × %q, %d dropped", size, l.lines(), most, message, l.droppedMessages())
		}
	}
}

func TestFailedCallbacksAreCountedWithThoseLeftOut(t *testing.T) {
	t.Parallel()
	l := newLogCounter()
	for range 150 { // more than are kept
		if _, err := l.Write([]byte(`{"msg":"callback failed"}` + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Write([]byte(`{"msg":"message callback failed","suppressed":50}` + "\n")); err != nil {
		t.Fatal(err)
	}
	if got := l.failedCallbacks(); got != 201 {
		t.Errorf("%d, want 201", got)
	}
}

func TestServing(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"level":"INFO","msg":"serving","url":"http://127.0.0.1:4711/","websocket":"/ws"}`: "127.0.0.1:4711",
		`{"level":"INFO","msg":"something else"}`:                                           "",
		`not JSON with "url":"http://127.0.0.1:1/"`:                                         "",
	} {
		if got, ok := serving(line); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %t", line, got, ok)
		}
	}
}

func TestStreamAccount(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)
	s := &stream{tried: 10, failed: 1}
	for i := range 12 { // the last two were never tried
		s.written = append(s.written, begun.Add(time.Duration(i)*time.Second))
	}
	rooms := []string{streamRoom}
	listeners := make([]listener, 2)
	for n := range 10 {
		if n != 3 && n != 4 && n != 8 && n != 9 {
			listeners[0].got = with(listeners[0].got, n)
		}
		listeners[1].got = with(listeners[1].got, n)
	}
	listeners[0].resyncs = []window{
		{Since: begun.Add(2900 * time.Millisecond), Until: begun.Add(4 * time.Second), Rooms: rooms},
		{Since: begun, Until: begun.Add(time.Minute), Rooms: []string{"another room"}},
	}
	// 3 and 4 are in a resync; one of 8 and 9 was reported by the emitter
	f, err := s.account(listeners)
	if err != nil || f.value != 1 {
		t.Errorf("unreported %v (%s), %v; want 1", f.value, f.note, err)
	}
	if _, err := s.account(make([]listener, 1)); err == nil {
		t.Error("a client that got nothing is no error")
	}
}

func with(set map[int]bool, n int) map[int]bool {
	if set == nil {
		set = map[int]bool{}
	}
	set[n] = true
	return set
}

func TestParseSummary(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]int{
		"hearth: 12 sent": {12, 0},
		"hearth: some error\nhearth: 400 sent; failed: 7, first at line 401": {400, 7},
		"hearth: no connection": {0, 0},
	} {
		if sent, failed := parseSummary(text); sent != want[0] || failed != want[1] {
			t.Errorf("%q: %d, %d", text, sent, failed)
		}
	}
}

func TestUUID(t *testing.T) {
	t.Parallel()
	if got := uuid(); len(got) != 36 || got[14] != '4' || got == uuid() {
		t.Errorf("got %s", got)
	}
}
