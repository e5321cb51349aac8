package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth/client"
	"github.com/hearthws/hearth/internal/test/behaviour"
	"github.com/hearthws/hearth/protocol"
)

// TestDeadServer checks that a client notices within the interval and the timeout, after any time
// of silence, that its server is gone, also if it sends meanwhile.
func TestDeadServer(t *testing.T) {
	for _, sends := range []bool{false, true} {
		for _, idle := range []time.Duration{0, time.Second, 24 * time.Second, 26 * time.Second, 5*time.Minute + 700*time.Millisecond} {
			t.Run(fmt.Sprint(sends, idle), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					w := newWorld(t, behaviour.Config{})
					j := newJournal()
					c := newClient(t, w, client.Config{OnState: j.state})
					must(t, c.Connect(t.Context()))
					time.Sleep(idle)
					j.wants(t, "connecting", "connected")
					do(t, w, `"freeze"`)
					began := time.Now()
					if sends {
						for range 20 {
							time.Sleep(time.Second)
							must(t, c.Send(t.Context(), "done", nil))
						}
					}
					j.wants(t, "waiting 1006")
					if d := time.Since(began); d > 35*time.Second || d < 10*time.Second {
						t.Errorf("noticed after %v", d)
					}
				})
			})
		}
	}
}

// TestFlapping checks that a server that closes its clients at once is not flooded, and that the
// times between attempts are random and have the limits of the configuration.
func TestFlapping(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		var waits []time.Duration
		f.client(client.Config{RetryMin: 100 * time.Millisecond, RetryMax: 10 * time.Second, OnState: func(s client.State) {
			if s.Phase == client.Waiting {
				waits = append(waits, s.Retry)
			}
		}})
		for range 60 {
			conn := f.accept()
			conn.welcome(fmt.Sprintf(extension, ""))
			conn.ws.Close(1012, "Service restart")
		}
		synctest.Wait()
		limit, sum := 100*time.Millisecond, time.Duration(0)
		for i, wait := range waits {
			switch {
			case i == 0 && wait != 0:
				t.Errorf("the first wait is %v", wait)
			case wait > limit:
				t.Errorf("wait %d is %v, limit %v", i, wait, limit)
			}
			if i > 10 {
				sum += wait
			}
			limit = min(2*limit, 10*time.Second)
		}
		if mean := sum / time.Duration(len(waits)-11); mean < 3*time.Second || mean > 7*time.Second {
			t.Errorf("the mean is %v, want about 5s", mean)
		}
	})
}

// TestTerminal checks after which ends of a connection a client gives up.
func TestTerminal(t *testing.T) {
	for code, terminal := range map[websocket.StatusCode]bool{
		1000: true, 1001: false, 1002: false, 1008: false, 1009: false, 1011: false, 1012: false, 1013: false,
		4000: true, 4001: false, 4002: false, 4003: true, 4004: true, 4005: false, 4006: false, 3000: true, 4999: true,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFake(t)
				c := f.client(client.Config{})
				conn := f.accept()
				conn.welcome("")
				must(t, c.Connect(t.Context()))
				conn.ws.Close(code, "because")
				if !terminal {
					f.accept().welcome("")
					return
				}
				<-c.Done()
				e, ok := errors.AsType[*client.CloseError](c.Connect(t.Context()))
				if !ok || e.Code != int(code) || e.Reason != "because" {
					t.Errorf("state %+v", c.State())
				}
			})
		})
	}
	for status, terminal := range map[int]bool{401: true, 403: true, 404: false, 429: false, 500: false, 503: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFake(t)
				f.status = status
				c := f.client(client.Config{})
				time.Sleep(time.Minute)
				s := c.State()
				e, ok := errors.AsType[*client.HandshakeError](s.Err)
				if phase := s.Phase; ok && e.Status != status || terminal != (phase == client.Closed) || terminal && !ok {
					t.Errorf("state %+v", s)
				}
			})
		})
	}
}

// TestBasicProtocol checks a client of a server without the extension.
func TestBasicProtocol(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		j := newJournal()
		c := f.client(client.Config{Credentials: login{User: "ada"}, OnState: j.state})
		client.On(c, "said", func(text string) { j.add("said %s", text) })
		room, err := c.Join("tea", j.room("tea", client.RoomConfig{Last: 3}))
		must(t, err)
		conn := f.accept()
		if m := conn.wants(`{"event":"authenticate","data":{"user":"ada"},"hearth":{"version":1,…`); len(m) != 1 {
			t.Error(m)
		}
		conn.send(`{"event":"connected","data":{"id":"1","userId":"ada","time":"2026-01-01T00:00:00.000Z"}}`)
		conn.wants(`{"event":"join","data":{"rooms":["tea"],"last":{"tea":3}},"id":"1"}`)
		j.wants(t, "connecting", "connected as ada", "tea joined")
		if s := c.State(); s.Extension || s.Recovery {
			t.Errorf("state %+v", s)
		}
		conn.send(`{"event":"said","data":"hi"}`)
		conn.send(`{"event":"said","data":7}`) // is not handled
		j.wants(t, "said hi")
		answer := make(chan error, 1)
		go func() { // ends with the answer
			_, err := client.Request[int](t.Context(), c, "ask", 1)
			answer <- err
		}()
		conn.wants(`{"event":"ask","data":1,"id":"2"}`)
		conn.send(`{"event":"ask","data":3,"id":"2"}`)
		must(t, <-answer)
		// A server that answers pings is alive, and gets heartbeats.
		for range 10 {
			conn.wants(`{"event":"heartbeat"}`)
		}
		// One that does not read is not.
		j.wants(t, "waiting 1006", "tea joining", "connecting")
		conn = f.accept()
		conn.welcome("")
		conn.wants(`{"event":"join","data":{"rooms":["tea"]},"id":"3"}`)
		j.wants(t, "connected as ada", "tea joined unrecovered lost")
		room.Leave()
		conn.wants(`{"event":"leave","data":{"rooms":["tea"]},"id":"4"}`)
		other, err := c.Join("other", client.RoomConfig{})
		must(t, err)
		conn.wants(`{"event":"join","data":{"rooms":["other"]},"id":"5"}`)
		must(t, other.Wait(t.Context()))
	})
}

// TestInterrupted checks that a client joins again when the server takes it out of a room, and asks
// again when the server could not decide.
func TestInterrupted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		j := newJournal()
		c := f.client(client.Config{})
		client.On(c, "said", func(m client.Message) { j.add("said %s", m.Data) })
		_, err := c.Join("tea", j.room("tea", client.RoomConfig{}))
		must(t, err)
		conn := f.accept()
		conn.welcome(fmt.Sprintf(extension, ""))
		conn.wants(`{"event":"join","data":{"rooms":["tea"]},"id":"1"}`)
		conn.send(`{"event":"join","data":{"joined":[{"room":"tea","offset":7,"epoch":"e"}],"rejected":[]},"id":"1"}`)
		conn.send(`{"event":"said","data":8,"room":"tea","offset":8,"epoch":"e"}`)
		conn.send(`{"event":"said","data":8,"room":"tea","offset":8,"epoch":"e"}`) // a duplicate
		conn.send(`{"event":"hearth:interrupted","data":{"rooms":["tea","other"],"reason":"gap"}}`)
		conn.send(`{"event":"hearth:later","data":{}}`) // of a later version
		conn.wants(`{"event":"join","data":{"rooms":["tea"],"positions":{"tea":{"offset":8,"epoch":"e"}}},"id":"2"}`)
		j.wants(t, "tea joined", "said 8", "tea joining")
		conn.send(`{"event":"join","data":{"joined":[],"rejected":[{"room":"tea","code":"internal"}]},"id":"2"}`)
		conn.wants(`{"event":"join","data":{"rooms":["tea"],"positions":{"tea":{"offset":8,"epoch":"e"}}},"id":"3"}`)
		conn.send(`{"event":"join","data":{"joined":[{"room":"tea","offset":11,"epoch":"e","recovered":2}],"rejected":[]},"id":"3"}`)
		conn.send(`{"event":"said","data":9,"room":"tea","offset":9,"epoch":"e"}`)
		j.wants(t, "tea recovering 2", "said 9")
		j.empty(t)
		// The connection is lost in between: the client continues from where it is.
		conn.ws.CloseNow()
		conn = f.accept()
		conn.welcome(fmt.Sprintf(extension, ""))
		conn.wants(`{"event":"join","data":{"rooms":["tea"],"positions":{"tea":{"offset":9,"epoch":"e"}}},"id":"4"}`)
		conn.send(`{"event":"join","data":{"joined":[{"room":"tea","offset":20,"epoch":"e","unrecovered":"unavailable"}],"rejected":[]},"id":"4"}`)
		j.wants(t, "tea joining", "tea joined unrecovered unavailable")
	})
}

// TestTickets checks the client's side of resuming.
func TestTickets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		j := newJournal()
		calls := 0
		c := f.client(client.Config{OnState: j.state, CredentialsFunc: func(context.Context) (any, error) {
			calls++
			return login{User: fmt.Sprint("ada", calls)}, nil
		}})
		tea, err := c.Join("tea", j.room("tea", client.RoomConfig{}))
		must(t, err)
		_, err = c.Join("plain", j.room("plain", client.RoomConfig{}))
		must(t, err)
		conn := f.accept()
		conn.welcome(fmt.Sprintf(extension, ""))
		conn.wants(`{"event":"join","data":{"rooms":["plain","tea"]},"id":"1"}`)
		conn.send(`{"event":"join","data":{"joined":[{"room":"plain"},{"room":"tea","offset":7,"epoch":"e"}],"rejected":[]},"id":"1"}`)
		conn.send(`{"event":"hearth:ticket","data":{"ticket":"old","expires":"2026-03-01T09:32:00.000Z"}}`)
		conn.send(`{"event":"hearth:ticket","data":{"ticket":"new","expires":"2026-03-01T09:32:00.000Z"}}`)
		j.wants(t, "connecting", "connected as ada", "plain joined", "tea joined")
		synctest.Wait()
		conn.ws.CloseNow()
		j.wants(t, "waiting 1006")
		_, err = c.Join("new", j.room("new", client.RoomConfig{}))
		must(t, err)
		conn = f.accept()
		conn.wants(`{"event":"authenticate","hearth":{"version":1,"features":["recovery","resume","ask"],"ticket":"new","positions":{"tea":{"offset":7,"epoch":"e"}}}}`)
		conn.send(`{"event":"connected","data":{"id":"1","userId":"ada"}%s}`, fmt.Sprintf(extension,
			`,"resumed":{"joined":[{"room":"1"},{"room":"tea","offset":8,"epoch":"e","recovered":1},{"room":"plain"}],"rejected":[]}`))
		conn.send(`{"event":"hearth:ticket","data":{"ticket":"third","expires":"2026-03-01T09:32:00.000Z"}}`)
		conn.wants(`{"event":"join","data":{"rooms":["new"]},"id":"2"}`)
		conn.send(`{"event":"said","data":8,"room":"tea","offset":8,"epoch":"e"}`)
		conn.send(`{"event":"join","data":{"joined":[{"room":"new"}],"rejected":[]},"id":"2"}`)
		var got []string
		for range 8 {
			got = append(got, <-j.lines)
		}
		want := "plain joining,tea joining,connecting,connected as ada, resumed,tea recovering 1,plain joined unrecovered lost,tea joined,new joined"
		if text := strings.Join(got, ","); text != want && text != strings.Replace(want, "plain joining,tea joining", "tea joining,plain joining", 1) {
			t.Errorf("got %s", text)
		}
		if calls != 1 || tea.Status().Position.Offset != 8 {
			t.Errorf("%d calls, %+v", calls, tea.Status())
		}

		// A ticket that is rejected is not used again.
		synctest.Wait()
		tea.Leave()
		conn.wants(`{"event":"leave","data":{"rooms":["tea"]},"id":"3"}`)
		conn.ws.CloseNow()
		conn = f.accept()
		conn.wants(`{"event":"authenticate",…"ticket":"third"}}`)
		conn.send(`{"event":"error","data":{"message":"Ticket rejected","code":"ticket_rejected"}}`)
		conn.wants(`{"event":"authenticate","data":{"user":"ada2"},"hearth":{"version":1,"features":["recovery","resume","ask"]}}`)
		conn.send(`{"event":"connected","data":{"id":"2","userId":"ada"}%s}`, fmt.Sprintf(extension, ""))
		conn.send(`{"event":"hearth:ticket","data":{"ticket":"fourth","expires":"2026-03-01T09:32:00.000Z"}}`)
		conn.wants(`{"event":"join","data":{"rooms":["new","plain"]},"id":"4"}`)

		// A session that has a room that was left in between leaves it. The ticket may be older.
		conn.send(`{"event":"join","data":{"joined":[{"room":"new"},{"room":"plain"}],"rejected":[]},"id":"4"}`)
		synctest.Wait()
		conn.ws.CloseNow()
		synctest.Wait()
		extra, err := c.Join("extra", client.RoomConfig{})
		must(t, err)
		conn = f.accept()
		conn.wants(`{"event":"authenticate",…"ticket":"fourth"}}`)
		conn.send(`{"event":"connected","data":{"id":"2","userId":"ada"}%s}`, fmt.Sprintf(extension,
			`,"resumed":{"joined":[{"room":"new"},{"room":"plain"}],"rejected":[]}`))
		conn.send(`{"event":"hearth:ticket","data":{"ticket":"fifth","expires":"2026-03-01T09:32:00.000Z"}}`)
		conn.wants(`{"event":"join","data":{"rooms":["extra"]},"id":"5"}`)
		conn.send(`{"event":"join","data":{"joined":[{"room":"extra"}],"rejected":[]},"id":"5"}`)
		must(t, extra.Wait(t.Context()))
		synctest.Wait()
		extra.Leave()
		conn.wants(`{"event":"leave","data":{"rooms":["extra"]},"id":"6"}`)
		conn.ws.CloseNow()
		conn = f.accept()
		conn.wants(`{"event":"authenticate",…"ticket":"fifth"}}`)
		conn.send(`{"event":"connected","data":{"id":"2","userId":"ada"}%s}`, fmt.Sprintf(extension,
			`,"resumed":{"joined":[{"room":"extra"},{"room":"new"},{"room":"plain"}],"rejected":[]}`))
		conn.wants(`{"event":"leave","data":{"rooms":["extra"]},"id":"7"}`)
		if calls != 2 {
			t.Errorf("%d calls", calls)
		}
	})
}

// TestViolations checks that a client leaves a server that breaks the protocol, and tries again.
func TestViolations(t *testing.T) {
	for name, send := range map[string]func(*fakeConn){
		"not JSON":  func(c *fakeConn) { c.send(`{`) },
		"too large": func(c *fakeConn) { c.send(`{"event":"x","data":"%s"}`, strings.Repeat("x", 2000)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFake(t)
				j := newJournal()
				f.client(client.Config{MaxMessage: 1000, OnState: j.state})
				conn := f.accept()
				conn.welcome("")
				send(conn)
				f.accept().welcome("")
			})
		})
	}
}

// TestPlaintext checks that an encrypted client does not take unencrypted messages.
func TestPlaintext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, behaviour.Config{Encryption: "optional"})
		j := newJournal()
		c := newClient(t, w, client.Config{Encryption: true, Credentials: []int{1}})
		if err := c.Connect(t.Context()); !errors.Is(err, client.ErrClosed) || !strings.Contains(err.Error(), "JSON object") {
			t.Errorf("got %v", err)
		}
		f := newFake(t)
		f.client(client.Config{Encryption: true, OnState: j.state})
		conn := f.accept()
		conn.wants(`{"event":"authenticate","data":{"publicKey":"…"},…`)
		conn.send(`{"event":"connected","data":{"id":"1","serverPublicKey":"%s","salt":"%s"}}`,
			"BGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
		conn.send(`{"event":"heartbeat"}`)
		conn.send(`{"event":"said","data":1}`)
		j.wants(t, "connecting", "connected, encrypted", "waiting: the server has sent an unencrypted message")
	})
}

// TestSlowCallback checks that messages wait for a callback that blocks, that the client stops
// reading when too many wait, and that nothing is lost.
func TestSlowCallback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, behaviour.Config{History: 10_000})
		c := newClient(t, w, client.Config{Buffer: 4 << 10})
		next, release := 0, make(chan struct{})
		done := make(chan struct{})
		client.On(c, "n", func(n int) {
			if <-release; n != next {
				t.Errorf("got %d, want %d", n, next)
			}
			if next++; next == 2000 {
				close(done)
			}
		})
		room, err := c.Join("h:n", client.RoomConfig{Changed: func(s client.RoomStatus) {
			if s.Unrecovered != "" {
				t.Errorf("status %+v", s)
			}
		}})
		must(t, err)
		must(t, c.Connect(t.Context()))
		must(t, room.Wait(t.Context()))
		send := func(from, to int) {
			for n := from; n < to; n++ {
				must(t, w.Send(t.Context(), "room:h:n", "n", n))
			}
		}
		send(0, 20)
		time.Sleep(2 * time.Minute) // a client that does not read still sends heartbeats
		if s := c.State(); s.Phase != client.Connected {
			t.Errorf("state %+v", s)
		}
		close(release)
		for n := 20; n < 2000; n += 20 {
			send(n, n+20)
			must(t, w.Drain(t.Context()))
		}
		<-done
	})
}

// TestCloses checks that Close works at any time, and frees everything.
func TestCloses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, behaviour.Config{})
		idle := newClient(t, w, client.Config{})
		idle.Close()
		idle.Close()
		if err := idle.Connect(t.Context()); !errors.Is(err, client.ErrClosed) {
			t.Errorf("got %v", err)
		}

		// In a callback.
		c := newClient(t, w, client.Config{})
		client.On(c, "end", func(client.Message) { c.Close() })
		must(t, c.Connect(t.Context()))
		must(t, w.Send(t.Context(), "all", "end", nil))
		<-c.Done()

		// While a callback blocks and messages wait.
		c = newClient(t, w, client.Config{Buffer: 1})
		begun, release := make(chan struct{}), make(chan struct{})
		client.On(c, "block", func(client.Message) {
			close(begun) // a second call would panic
			<-release
		})
		must(t, c.Connect(t.Context()))
		for range 10 {
			must(t, w.Send(t.Context(), "all", "block", nil))
		}
		<-begun
		synctest.Wait()
		c.Close()
		close(release)
		<-c.Done()

		// While the server does not answer.
		c = newClient(t, w, client.Config{})
		must(t, c.Connect(t.Context()))
		do(t, w, `"freeze"`)
		began := time.Now()
		c.Close()
		if d := time.Since(began); d > time.Second {
			t.Errorf("closed after %v", d)
		}

		// While it connects, and while it waits.
		c = newClient(t, w, client.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		c.Close()
		do(t, w, `"thaw"`)
		do(t, w, `"stop"`)
		c = newClient(t, w, client.Config{RetryMin: time.Hour, RetryMax: time.Hour})
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		must(t, c.Send(t.Context(), "x", 1))
		c.Close()
		if c.Dropped() != 1 {
			t.Errorf("%d messages dropped", c.Dropped())
		}
	})
}

// TestWait checks Send with a queue that is full, and messages that are too large.
func TestWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		c := f.client(client.Config{QueueMessages: 2})
		conn := f.accept()
		for range 2 {
			must(t, c.Send(t.Context(), "x", 1))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Send(ctx, "x", 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, err := client.Request[int](ctx, c, "x", 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		sent := make(chan error, 3)
		for i := range 3 {
			go func() { sent <- c.Send(t.Context(), "y", i) }() // ends when there is space
		}
		conn.welcome(fmt.Sprintf(extension, ""))
		conn.wants(`{"event":"x","data":1}`)
		conn.wants(`{"event":"x","data":1}`)
		for range 3 {
			conn.wants(`{"event":"y","data":…}`)
			must(t, <-sent)
		}
		must(t, c.Send(t.Context(), "large", strings.Repeat("x", 2000)))
		if _, err := client.Request[int](t.Context(), c, "large", strings.Repeat("x", 2000)); !errors.Is(err, client.ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		if c.Dropped() != 1 {
			t.Errorf("%d messages dropped", c.Dropped())
		}
		// A request that waits for the connection may be given up.
		conn.ws.CloseNow()
		conn = f.accept()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := client.Request[int](ctx, c, "given up", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		must(t, c.Send(t.Context(), "last", 1))
		conn.welcome(fmt.Sprintf(extension, ""))
		conn.wants(`{"event":"last","data":1}`)
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []client.Config{
		{}, {URL: "ftp://x"}, {URL: "ws://"}, {URL: "::"}, {URL: "ws://x", QueueMessages: -1}, {URL: "ws://x", QueueFull: 9},
		{URL: "ws://x", Buffer: -1}, {URL: "ws://x", MaxMessage: -1}, {URL: "ws://x", RetryMin: -1}, {URL: "ws://x", RetryMin: 2, RetryMax: 1},
		{URL: "ws://x", ConnectTimeout: -1}, {URL: "ws://x", Credentials: 1, CredentialsFunc: func(context.Context) (any, error) { return 1, nil }},
	} {
		if _, err := client.New(cfg); err == nil || !strings.HasPrefix(err.Error(), "client: Config.") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// TestMemberBefore checks that a client recovers the messages of a room that the server joins by
// itself, and that messages which arrive before the answer do not hide those that were missed.
func TestMemberBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		j := newJournal()
		c := f.client(client.Config{})
		client.On(c, "said", func(n int) { j.add("said %d", n) })
		_, err := c.Join("tea", j.room("tea", client.RoomConfig{After: protocol.Position{Offset: 7, Epoch: "e"}}))
		must(t, err)
		say := func(conn *fakeConn, n int) {
			conn.send(`{"event":"said","data":%d,"room":"tea","offset":%d,"epoch":"e"}`, n, n)
		}
		member := func(conn *fakeConn, first int) {
			conn.welcome(fmt.Sprintf(extension, ""))
			conn.wants(fmt.Sprintf(`{"event":"join","data":{"rooms":["tea"],"positions":{"tea":{"offset":7,"epoch":"e"}}},"id":"%d"}`, first))
			say(conn, 9)
			conn.send(`{"event":"join","data":{"joined":[{"room":"tea","offset":9,"epoch":"e"}],"rejected":[]},"id":"%d"}`, first)
			conn.wants(fmt.Sprintf(`{"event":"leave","data":{"rooms":["tea"]},"id":"%d"}`, first+1))
			conn.wants(fmt.Sprintf(`{"event":"join","data":{"rooms":["tea"],"positions":{"tea":{"offset":7,"epoch":"e"}}},"id":"%d"}`, first+2))
			say(conn, 10)
			conn.send(`{"event":"leave","data":{"left":["tea"],"rejected":[]},"id":"%d"}`, first+1)
		}
		conn := f.accept()
		member(conn, 1)
		conn.ws.CloseNow()
		conn = f.accept()
		member(conn, 4)
		conn.send(`{"event":"join","data":{"joined":[{"room":"tea","offset":10,"epoch":"e","recovered":3}],"rejected":[]},"id":"6"}`)
		for n := 8; n <= 11; n++ {
			say(conn, n)
		}
		j.wants(t, "tea recovering 3", "said 8", "said 9", "said 10", "tea joined", "said 11")

		// The server joins it again at once: the client says that messages may be missing.
		c.Close()
		c = f.client(client.Config{})
		_, err = c.Join("tea", j.room("tea", client.RoomConfig{After: protocol.Position{Offset: 7, Epoch: "e"}}))
		must(t, err)
		conn = f.accept()
		member(conn, 1)
		conn.send(`{"event":"join","data":{"joined":[{"room":"tea","offset":10,"epoch":"e"}],"rejected":[]},"id":"3"}`)
		j.wants(t, "tea joined unrecovered lost")
	})
}

// TestAnswers checks answers that a script does not.
func TestAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		c := f.client(client.Config{})
		release := make(chan struct{})
		client.Answer(c, "slow", func(ctx context.Context, n int) (int, error) {
			select {
			case <-release:
				return n, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		client.Answer(c, "fail", func(context.Context, any) (any, error) { return nil, errors.New("no database") })
		client.Answer(c, "wrong", func(context.Context, any) (any, error) { return func() {}, nil })
		client.Answer(c, "none", func(context.Context, any) (any, error) { return protocol.NoData{}, nil })
		client.Answer(c, "gone", func(context.Context, any) (any, error) { return 1, nil })
		client.Answer[any, any](c, "gone", nil)
		conn := f.accept()
		conn.welcome(fmt.Sprintf(extension, ""))
		for event, want := range map[string]string{
			`"fail"`: `"error":{"code":"internal"}`, `"wrong"`: `"error":{"code":"internal"}`, `"gone"`: `"error":{"code":"unknown_event"}`,
			`"slow","data":"x"`: `"error":{"message":"Invalid data","code":"invalid_data"}`, `"none"`: "",
		} {
			conn.send(`{"event":"hearth:ask","data":{"ask":7,"event":%s}}`, event)
			if want != "" {
				want = "," + want
			}
			conn.wants(`{"event":"hearth:answer","data":{"ask":7` + want + `}}`)
		}
		conn.send(`{"event":"hearth:ask","data":{"event":"slow","data":1}}`) // without a number
		conn.send(`{"event":"hearth:ask"}`)
		for n := range 64 {
			conn.send(`{"event":"hearth:ask","data":{"ask":%d,"event":"slow","data":%d}}`, n, n)
		}
		conn.send(`{"event":"hearth:ask","data":{"ask":64,"event":"slow","data":1}}`)
		conn.wants(`{"event":"hearth:answer","data":{"ask":64,"error":{"code":"busy"}}}`)
		close(release)
		for range 64 {
			conn.wants(`{"event":"hearth:answer","data":{"ask":…,"data":…}}`)
		}
		release = make(chan struct{})
		conn.send(`{"event":"hearth:ask","data":{"ask":65,"event":"slow","data":1}}`)
		synctest.Wait()
		conn.ws.CloseNow() // ends the context, and the answer is not sent
		conn = f.accept()
		conn.welcome(fmt.Sprintf(extension, ""))
		must(t, c.Send(t.Context(), "next", 1))
		conn.wants(`{"event":"next","data":1}`)
	})
}

// TestRefresh checks how a client repeats new credentials.
func TestRefresh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		calls := 0
		c := f.client(client.Config{CredentialsFunc: func(context.Context) (any, error) {
			if calls++; calls == 4 {
				return nil, errors.New("offline")
			}
			return calls, nil
		}})
		conn := f.accept()
		conn.welcome(fmt.Sprintf(extension, `,"expires":"2026-03-01T10:30:00.000Z"`))
		must(t, c.Connect(t.Context()))
		if s := c.State(); s.Expires.Month() != time.March {
			t.Errorf("expires %v", s.Expires)
		}
		expiring := `{"event":"hearth:expiring","data":{"expires":"2026-03-01T10:30:00.000Z"}}`
		conn.send("%s", expiring)
		conn.wants(`{"event":"authenticate","data":2,"id":"1"}`)
		conn.send("%s", expiring) // the client sends new credentials already
		began := time.Now()
		conn.send(`{"event":"error","data":{"message":"Try again later","code":"busy"},"id":"1"}`)
		conn.wants(`{"event":"authenticate","data":3,"id":"2"}`)
		if d := time.Since(began); d < 5*time.Second || d > 10*time.Second {
			t.Errorf("again after %v", d)
		}
		conn.send(`{"event":"error","data":{"message":"Authentication error"},"id":"2"}`)
		conn.wants(`{"event":"authenticate","data":5,"id":"3"}`) // the function has failed once
		conn.send(`{"event":"authenticate","data":{"expires":"2026-04-01T10:30:00.000Z"},"id":"3"}`)
		synctest.Wait()
		if s := c.State(); s.Expires.Month() != time.April {
			t.Errorf("expires %v", s.Expires)
		}
		conn.send("%s", expiring)
		conn.wants(`{"event":"authenticate","data":6,"id":"4"}`)
		conn.send(`{"event":"error","data":{"message":"Authentication failed"},"id":"4"}`)
		conn.wants(`{"event":"heartbeat"}`) // nothing more
		conn.send(`{"event":"heartbeat"}`)
		conn.send("%s", expiring)
		conn.wants(`{"event":"authenticate","data":7,"id":"5"}`)
		conn.ws.Close(4005, "Credentials expired")
		conn = f.accept()
		if m := conn.wants(`{"event":"authenticate","data":8,…`); len(m) != 1 {
			t.Error(m)
		}
	})
}
