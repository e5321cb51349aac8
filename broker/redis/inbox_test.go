package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/resp"
	"github.com/hearthws/hearth/protocol"
)

// line returns the JSON of a message with data of a size.
func line(server, event string, size int) string {
	m := protocol.Message{ServerID: server, Type: protocol.TypeBroadcast, Event: event, Data: []byte(`"` + strings.Repeat("x", size) + `"`)}
	return string(protocol.AppendMessage(nil, m))
}

// msg returns a message as it comes from a connection.
func msg(channel, payload string) resp.Message {
	return resp.Message{Channel: channel, Payload: payload, Size: len(payload)}
}

// incomingOf returns messages as they are queued.
func incomingOf(messages ...resp.Message) (batch []incoming) {
	for _, m := range messages {
		batch = append(batch, incoming{Message: m})
	}
	return batch
}

// payloads returns messages with these payloads as they are queued.
func payloads(texts ...string) (batch []incoming) {
	for _, text := range texts {
		batch = append(batch, incomingOf(resp.Message{Payload: text})...)
	}
	return batch
}

// TestLossOrder checks the exact sequence of deliveries and losses: of overflows, whose number is
// known, and of a connection, whose number is not.
func TestLossOrder(t *testing.T) {
	t.Parallel()
	for _, together := range []bool{false, true} {
		t.Run(fmt.Sprint("together=", together), func(t *testing.T) { testLossOrder(t, together) })
	}
}

func testLossOrder(t *testing.T, together bool) {
	synctest.Test(t, func(t *testing.T) {
		var h health
		in := newInbox(Bound{Messages: 3, Bytes: 1000}, &h)
		bad := newLimitedLog(Config{}.withDefaults().Logger, "bad")
		release := make(chan struct{})
		var got []string // owned by the receiver, until it has ended
		r := broker.Receiver{
			ServerID: "me",
			Deliver: func(m protocol.Message) {
				<-release
				got = append(got, m.Event)
			},
			Lost: func(l broker.Loss) { got = append(got, fmt.Sprintf("lost:%d", l.Messages)) },
		}
		want := "0 1 2 3 lost:3 lost:0 last"
		if together {
			want = "0 1+2+3 lost:3 lost:0 last"
			r.DeliverAll = func(ms []protocol.Message) {
				<-release
				var events []string
				for _, m := range ms {
					events = append(events, m.Event)
				}
				got = append(got, strings.Join(events, "+"))
			}
		}
		done := make(chan struct{})
		go func() { // ends with in.close, below
			defer close(done)
			in.deliver(r, bad)
		}()
		put := func(events ...string) {
			for i, event := range events {
				events[i] = line("other", event, 1)
			}
			in.put(payloads(events...))
		}
		put("0")
		synctest.Wait() // 0 is being delivered
		put("1", "2", "3", "4", "5")
		in.lose(broker.Loss{Since: time.Now(), Until: time.Now(), Cause: errConnection})
		put("6")
		in.lose(broker.Loss{Since: time.Now(), Until: time.Now(), Cause: errConnection})
		close(release)
		synctest.Wait()
		in.put(payloads(line("me", "own", 1), "no JSON", line("other", "last", 1)))
		synctest.Wait()
		in.close()
		<-done
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		state := h.get()
		if state.Lost != 3 || state.Losses != 2 || state.Delivered != 5 || state.Malformed != 1 || !errors.Is(state.Err, errConnection) {
			t.Errorf("health is %+v", state)
		}
	})
}

// TestLongChannels checks that the queue is bounded, also for long channel names.
func TestLongChannels(t *testing.T) {
	t.Parallel()
	var h health
	in := newInbox(Bound{Messages: 100, Bytes: 1000}, &h)
	for range 5 {
		in.put(incomingOf(msg(strings.Repeat("c", 400), "{}")))
	}
	if n := in.queue.Len(); n != 2 || h.get().Lost != 3 {
		t.Errorf("%d messages wait, and %d are lost; want 2 and 3", n, h.get().Lost)
	}
	if _, more := in.take(nil); !more || in.bytes != 0 {
		t.Errorf("%d bytes are counted for an empty queue", in.bytes)
	}
}

// TestKeptBuffersAreBounded checks that messages do not keep many buffers of which each contains
// only one of them.
func TestKeptBuffersAreBounded(t *testing.T) {
	t.Parallel()
	const messages = 1 << 12
	var h health
	in := newInbox(Bound{}.withDefaults(), &h)
	kept := make(map[*resp.Buffer]bool)
	fill := func() {
		for range messages {
			free := make(chan *resp.Buffer, 1)
			m := msg("c", line("other", "e", 1))
			m.Buffer = resp.NewBuffer(resp.BufferSize, free)
			in.put(incomingOf(m))
			if len(free) == 0 {
				kept[m.Buffer] = true
			}
		}
	}
	for range 2 { // the count is reduced again
		fill()
		if bytes := len(kept) * resp.BufferSize; bytes > maxBufferBytes || bytes < maxBufferBytes/2 {
			t.Errorf("%d MiB are kept for %d short messages", bytes>>20, messages)
		}
		for in.queue.Len() > 0 {
			batch, _ := in.take(nil)
			for _, m := range batch {
				if m.Payload != line("other", "e", 1) || m.Channel != "c" {
					t.Fatalf("got %+v", m)
				}
				delete(kept, m.Buffer)
				m.Buffer.Release()
			}
		}
		if len(kept) > 0 || in.bufferBytes != 0 || in.bytes != 0 {
			t.Errorf("%d buffers are kept, %d bytes of buffers and %d of messages are counted; want none", len(kept), in.bufferBytes, in.bytes)
		}
	}
}

// TestBatcher checks that the messages of one read are handed over when the next one begins, or
// when they are many, and that the node's own messages and probes are not.
func TestBatcher(t *testing.T) {
	t.Parallel()
	var h health
	in := newInbox(Bound{Messages: 1 << 20, Bytes: 1 << 30}, &h)
	var seen []string
	r := batcher{
		inbox: in, malformed: newLimitedLog(Config{}.withDefaults().Logger, "bad"), maxMessage: 1000, ownPrefix: ownPrefix("me\""), probeChannel: "p",
		onProbe: func(probe string) { seen = append(seen, probe) },
	}
	waits := func() int { return in.queue.Len() }
	r.message(msg("c", line("me\"", "own", 1)))
	r.message(msg("p", "7"))
	r.message(msg("c", line("other", "large", 1000)))
	r.message(msg("c", ""))
	r.message(msg("c", line("me\"2", "e", 1)))
	if waits() != 0 {
		t.Error("handed over before the read ended")
	}
	r.flush()
	if waits() != 1 || h.malformed.Load() != 2 || len(seen) != 1 || seen[0] != "7" {
		t.Errorf("%d messages, %d malformed, probes %v; want one, two, 7", waits(), h.malformed.Load(), seen)
	}
	for range batchMessages {
		r.message(msg("c", line("other", "e", 1)))
	}
	if waits() != 1+batchMessages {
		t.Error("a full batch was not handed over")
	}
}

// BenchmarkReceive measures what a message of 100 bytes costs between the connection and the
// receiver.
func BenchmarkReceive(b *testing.B) {
	var h health
	in := newInbox(Bound{}.withDefaults(), &h)
	bad := newLimitedLog(Config{}.withDefaults().Logger, "bad")
	delivered := 0
	r := batcher{inbox: in, malformed: bad, maxMessage: 1 << 20, ownPrefix: ownPrefix("me"), probeChannel: "p"}
	m := msg("ws:room:lobby", line("5f4dcc3b-5aa7-65d6-1d83-27deb882cf99", "message", 100))
	var batch []incoming
	var ms []protocol.Message
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.message(m)
		if i%64 == 63 { // as one read returns them
			r.flush()
			batch, _ = in.take(batch[:0])
			ms = in.parse(ms[:0], batch, "me", bad)
			delivered += len(ms)
		}
	}
	if delivered == 0 && b.N > 64 {
		b.Error("nothing was delivered")
	}
}
