package node

import (
	"container/list"
	"net/netip"

	"github.com/hearthws/hearth/internal/session"
)

// boundedQueue is a queue of limited length, oldest entry first. A second limit applies to the
// entries of one IPv4 address or one IPv6 /64 network. It is not safe for concurrent use.
type boundedQueue[T any] struct {
	max, perAddr int // 0: no limit

	all    list.List // of *queueEntry[T]
	byAddr map[netip.Prefix]*list.List
}

// maxIncompletePerAddr returns how many connections of one address may wait for a request. It is
// more than the limit for clients, so that a small limit does not prevent clients of one address
// from connecting at the same time.
func maxIncompletePerAddr(l session.Limits) int {
	if l.MaxUnauthenticatedPerAddr <= 0 {
		return 0
	}
	return l.MaxUnauthenticatedPerAddr + 16
}

// A queueEntry is an entry of a boundedQueue.
type queueEntry[T any] struct {
	value    T
	network  netip.Prefix
	elem     *list.Element // in boundedQueue.all; nil after remove
	addrElem *list.Element // in the list of the network; nil if it does not count for the network
}

// add appends v. If that exceeds a limit, it removes the oldest entry of the same network, or of
// all, and returns it as excess.
func (q *boundedQueue[T]) add(v T, addr netip.Addr) (added, excess *queueEntry[T]) {
	added = &queueEntry[T]{value: v, network: session.Network(addr)}
	added.elem = q.all.PushBack(added)
	if q.perAddr > 0 {
		same := q.byAddr[added.network]
		if same == nil {
			if q.byAddr == nil {
				q.byAddr = make(map[netip.Prefix]*list.List)
			}
			same = list.New()
			q.byAddr[added.network] = same
		}
		added.addrElem = same.PushBack(added)
		if same.Len() > q.perAddr {
			excess = same.Front().Value.(*queueEntry[T])
		}
	}
	if excess == nil && q.max > 0 && q.all.Len() > q.max {
		excess = q.oldest()
	}
	if excess != nil {
		q.remove(excess)
	}
	return added, excess
}

// remove removes e, if it is still in the queue.
func (q *boundedQueue[T]) remove(e *queueEntry[T]) {
	if e.elem != nil {
		q.all.Remove(e.elem)
		e.elem = nil
	}
	q.exempt(e)
}

// exempt keeps e in the queue, and no longer counts it for its network.
func (q *boundedQueue[T]) exempt(e *queueEntry[T]) {
	if e.addrElem == nil {
		return
	}
	same := q.byAddr[e.network]
	same.Remove(e.addrElem)
	e.addrElem = nil
	if same.Len() == 0 {
		delete(q.byAddr, e.network)
	}
}

// oldest returns the oldest entry, or nil if the queue is empty.
func (q *boundedQueue[T]) oldest() *queueEntry[T] {
	if e := q.all.Front(); e != nil {
		return e.Value.(*queueEntry[T])
	}
	return nil
}

func (q *boundedQueue[T]) len() int { return q.all.Len() }
