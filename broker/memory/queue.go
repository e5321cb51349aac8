package memory

import (
	"errors"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// ErrOverflow is the cause of every loss on a Bus: the node did not deliver as fast as the others published.
var ErrOverflow = errors.New("memory broker: receiver too slow, queue full")

// An item is a message, and what was lost just before it.
type item struct {
	message protocol.Message
	before  broker.Loss // Messages is 0 for nothing
}

// put queues m for this node, or notes that it is lost, and sees to it that someone delivers. Any goroutine.
func (n *Broker) put(m protocol.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.phase.Load() != running {
		return
	}
	if c := n.bus.config; n.queue.Len() > 0 && (n.queue.Len() >= c.QueueMessages || n.queued+len(m.Data) > c.QueueBytes) {
		n.loseLocked()
		return
	}
	n.queue.Push(item{message: m, before: n.gap})
	n.queued += len(m.Data)
	n.gap = broker.Loss{}
	if !n.pumping {
		n.pumping = true
		n.pumps.Go(n.pump) // ends when the queue is empty, or by Close, which waits for it
	}
}

func (n *Broker) loseLocked() {
	now := time.Now()
	if n.gap.Messages == 0 {
		n.gap = broker.Loss{Since: now, Cause: ErrOverflow}
		n.health.Losses++
		n.health.Err = ErrOverflow
	}
	n.gap.Until = now
	n.gap.Messages++
	n.health.Lost++
}

// pump delivers until nothing is left.
func (n *Broker) pump() {
	for {
		n.mu.Lock()
		if n.phase.Load() != running || (n.queue.Len() == 0 && n.gap.Messages == 0) {
			n.pumping = false
			n.mu.Unlock()
			return
		}
		if n.queue.Len() == 0 { // the last messages were lost
			loss := n.gap
			n.gap = broker.Loss{}
			n.mu.Unlock()
			n.tell(loss)
			continue
		}
		it := n.queue.Pop()
		n.queued -= len(it.message.Data)
		n.health.Delivered++
		n.mu.Unlock()
		n.tell(it.before)
		n.receiver.Deliver(it.message)
	}
}

func (n *Broker) tell(loss broker.Loss) {
	if loss.Messages > 0 && n.receiver.Lost != nil {
		n.receiver.Lost(loss)
	}
}
