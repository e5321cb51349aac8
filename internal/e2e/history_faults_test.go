package e2e_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
)

// A follower is a client that follows a room as the protocol documents it: it keeps its position,
// and joins again when it is told that messages are missing.
type follower struct {
	*peer

	mu       sync.Mutex // guards the fields below
	at       hearth.Position
	got      []int
	reported int    // gaps that it was told about
	wrong    string // the first violation
}

// follow reads until the end of the connection.
func (f *follower) follow() {
	for {
		r := f.next()
		if r.err != nil || r.code != 0 {
			return
		}
		f.handle(r.text)
	}
}

func (f *follower) handle(text string) {
	var m struct {
		Event string
		Data  json.RawMessage
		hearth.Position
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		f.fail("got " + text)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch m.Event {
	case "n":
		n := 0
		if err := json.Unmarshal(m.Data, &n); err != nil || m.Epoch == "" {
			f.wrong = "got " + text
			return
		}
		if m.Epoch != f.at.Epoch || m.Offset != f.at.Offset+1 {
			f.wrong = fmt.Sprintf("message at %v after %v", m.Position, f.at)
		}
		f.at = m.Position
		f.got = append(f.got, n)
	case "join":
		var reply struct {
			Joined []struct {
				hearth.Position
				Recovered   int
				Unrecovered string
			}
		}
		if err := json.Unmarshal(m.Data, &reply); err != nil || len(reply.Joined) != 1 {
			f.wrong = "got " + text
			return
		}
		if j := reply.Joined[0]; j.Unrecovered != "" || f.at == (hearth.Position{}) {
			f.at = j.Position
		}
	case "hearth:interrupted":
		f.reported++
		at, _ := json.Marshal(f.at)
		_ = f.wire.send(opText, []byte(`{"event":"join","data":{"rooms":["chat"],"positions":{"chat":`+string(at)+`}}}`))
	default:
		f.wrong = "got " + text
	}
}

func (f *follower) fail(wrong string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrong = wrong
}

// TestHistoryFaults disturbs Redis while one of two servers sends to a room with history. Each
// message that Send accepted arrives at each client, in order and once, or is counted as dropped,
// or the clients are told of the gap.
func TestHistoryFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, tt := range map[string]struct {
		fault    func(s *redistest.Server)
		complete bool // nothing may be missing
	}{
		"subscriptions killed": {func(s *redistest.Server) { s.Do("CLIENT", "KILL", "TYPE", "pubsub") }, true},
		"scripts removed":      {func(s *redistest.Server) { s.Do("SCRIPT", "FLUSH") }, true},
		"publishers killed":    {func(s *redistest.Server) { s.Do("CLIENT", "KILL", "TYPE", "normal") }, false},
		"frozen": {func(s *redistest.Server) {
			s.Freeze()
			<-time.After(500 * time.Millisecond)
			s.Thaw()
		}, false},
		"data removed": {func(s *redistest.Server) { s.Do("FLUSHALL") }, false},
		"restarted": {func(s *redistest.Server) {
			s.Kill()
			s.Restart()
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testHistoryFault(t, tt.fault, tt.complete)
		})
	}
}

func testHistoryFault(t *testing.T, fault func(*redistest.Server), complete bool) {
	store := redistest.Start(t)
	connect := func() *rig {
		b, err := redis.New(redis.Config{
			URL: store.URL(), History: chatHistory, BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
			Logger: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		return start(t, config{Broker: b, ValidateRooms: anyRoom})
	}
	servers := []*rig{connect(), connect()}
	var followers []*follower
	var following sync.WaitGroup
	for i := range 4 {
		f := &follower{peer: servers[i%2].recovering(fmt.Sprint("u", i))}
		f.text(`{"event":"join","data":{"rooms":["chat"]}}`)
		f.handle(f.next().text)
		followers = append(followers, f)
		following.Go(f.follow) // ends with the connection
	}
	var accepted []int
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for i, end := 0, time.Now().Add(1500*time.Millisecond); time.Now().Before(end); i++ {
		if servers[0].Send(t.Context(), hearth.ToRoom("chat"), "n", i) == nil {
			accepted = append(accepted, i)
		}
		if i%200 == 100 && i < 700 {
			fault(store)
		}
		<-pace.C
	}
	// The last message arrives when Redis works again, and shows that everything before is settled.
	last := -1
	pace.Reset(100 * time.Millisecond)
	for end := time.Now().Add(answer); ; <-pace.C {
		last--
		_ = servers[0].Send(t.Context(), hearth.ToRoom("chat"), "n", last)
		done := 0
		for _, f := range followers {
			f.mu.Lock()
			if slices.ContainsFunc(f.got, func(n int) bool { return n < 0 }) {
				done++
			}
			f.mu.Unlock()
		}
		if done == len(followers) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no message arrives: %+v", servers[0].Health())
		}
	}
	h := servers[0].Health()
	for i, f := range followers {
		f.mu.Lock()
		missing := 0
		for _, n := range accepted {
			if !slices.Contains(f.got, n) {
				missing++
			}
		}
		if f.wrong != "" {
			t.Errorf("client %d: %s", i, f.wrong)
		}
		if complete && (missing > 0 || f.reported > 0) || missing > int(h.Dropped+h.Uncertain) && f.reported == 0 {
			t.Errorf("client %d: %d of %d messages are missing, %d gaps were reported, health is %+v", i, missing, len(accepted), f.reported, h)
		}
		t.Logf("client %d: %d of %d messages are missing, %d dropped, %d gaps reported", i, missing, len(accepted), h.Dropped, f.reported)
		f.mu.Unlock()
		f.wire.close()
	}
	following.Wait()
	if s := servers[1].Stats(); complete && s.Gaps > 0 {
		t.Errorf("stats: %+v", s)
	}
}
