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
	message    protocol.Message
	lossBefore broker.Loss // Messages is 0 for nothing
}

// enqueue queues m for this node, or notes that it is lost, and sees to it that someone delivers. Any goroutine.
func (n *Broker) enqueue(m protocol.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.phase.Load() != running {
		return
	}
	if c := n.bus.config; n.queue.Len() > 0 && (n.queue.Len() >= c.QueueMessages || n.queued+len(m.Data) > c.QueueBytes) {
		n.dropLocked()
		return
	}
	n.queue.Push(item{message: m, lossBefore: n.pendingLoss})
	n.queued += len(m.Data)
	n.pendingLoss = broker.Loss{}
	if !n.delivering {
		n.delivering = true
		n.deliveries.Go(n.deliverQueued) // ends when the queue is empty, or by Close, which waits for it
	}
}

func (n *Broker) dropLocked() {
	now := time.Now()
	if n.pendingLoss.Messages == 0 {
		n.pendingLoss = broker.Loss{Since: now, Cause: ErrOverflow}
		n.health.Losses++
		n.health.Err = ErrOverflow
	}
	n.pendingLoss.Until = now
	n.pendingLoss.Messages++
	n.health.Lost++
}

// deliverQueued delivers until nothing is left.
func (n *Broker) deliverQueued() {
	for {
		n.mu.Lock()
		if n.phase.Load() != running || (n.queue.Len() == 0 && n.pendingLoss.Messages == 0) {
			n.delivering = false
			n.mu.Unlock()
			return
		}
		if n.queue.Len() == 0 { // the last messages were lost
			loss := n.pendingLoss
			n.pendingLoss = broker.Loss{}
			n.mu.Unlock()
			n.reportLoss(loss)
			continue
		}
		it := n.queue.Pop()
		n.queued -= len(it.message.Data)
		n.health.Delivered++
		n.mu.Unlock()
		n.reportLoss(it.lossBefore)
		n.receiver.Deliver(it.message)
	}
}

func (n *Broker) reportLoss(loss broker.Loss) {
	if loss.Messages > 0 && n.receiver.Lost != nil {
		n.receiver.Lost(loss)
	}
}
