package history

import "github.com/hearthws/hearth/protocol"

// A queue has the newest messages of a room, bounded by maxWaiting and maxWaitingBytes. The oldest
// are dropped.
type queue struct {
	ms     []protocol.Message
	bytes  int
	pushed uint64 // how many messages were ever added
}

// push adds copies of messages.
func (q *queue) push(ms []protocol.Message) {
	for _, m := range ms {
		q.ms = append(q.ms, m.Clone())
		q.bytes += Size(m)
	}
	q.pushed += uint64(len(ms))
	drop := 0
	for len(q.ms)-drop > maxWaiting || q.bytes > maxWaitingBytes && drop < len(q.ms) {
		q.bytes -= Size(q.ms[drop])
		drop++
	}
	if drop > 0 {
		clear(q.ms[:drop])
		q.ms = q.ms[drop:]
	}
}

// takeAll removes all messages.
func (q *queue) takeAll() []protocol.Message {
	ms := q.ms
	*q = queue{pushed: q.pushed}
	return ms
}

// Size returns about how many bytes a message takes, in a queue or in a frame for a client.
func Size(m protocol.Message) int { return len(m.Data) + len(m.Event) + len(m.Target) + 128 }
