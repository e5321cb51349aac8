package memory

import (
	"errors"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// ErrOverflow is the cause of every loss on a Bus: the node was slower than the publishers, and its
// queue was full.
var ErrOverflow = errors.New("memory broker: receiver too slow, queue full")

// An item is a message, and the losses just before it.
type item struct {
	message    protocol.Message
	lossBefore broker.Loss // Messages is 0 if there are none
}

// enqueue queues m for this node, or records it as lost. It starts a goroutine that delivers if
// none is running. Safe for concurrent use.
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
		// Ends when the queue is empty, or by Close, which waits for it.
		n.deliveries.Go(n.deliverQueued)
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

// deliverQueued delivers until the queue is empty.
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
