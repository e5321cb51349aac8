package node

import (
	"container/list"
	"net/netip"

	"github.com/hearthws/hearth/internal/session"
)

// boundedQueue holds what has come in, oldest first, bounded in number: in all, and for each address (of IPv6: each /64).
// Not for concurrent use.
type boundedQueue[T any] struct {
	max, perAddr int // 0: no bound

	all    list.List // of *arrival[T]
	byAddr map[netip.Prefix]*list.List
}

// maxIncompletePerAddr is how many connections of one address may wait for a request. A few more than its clients: a small limit of those
// must not keep them from connecting at the same time.
func maxIncompletePerAddr(l session.Limits) int {
	if l.MaxUnauthenticatedPerAddr <= 0 {
		return 0
	}
	return l.MaxUnauthenticatedPerAddr + 16
}

// An queueEntry is a place in arrivals.
type queueEntry[T any] struct {
	value    T
	network  netip.Prefix
	elem     *list.Element // in arrivals.all; nil: removed
	addrElem *list.Element // in the list of its address; nil: counts for none
}

// add appends v. It returns, removed, the arrival that is too much then: the oldest of the same address or of all; nil if
// there is none.
func (a *boundedQueue[T]) add(v T, addr netip.Addr) (added, excess *queueEntry[T]) {
	added = &queueEntry[T]{value: v, network: session.Network(addr)}
	added.elem = a.all.PushBack(added)
	if a.perAddr > 0 {
		same := a.byAddr[added.network]
		if same == nil {
			if a.byAddr == nil {
				a.byAddr = make(map[netip.Prefix]*list.List)
			}
			same = list.New()
			a.byAddr[added.network] = same
		}
		added.addrElem = same.PushBack(added)
		if same.Len() > a.perAddr {
			excess = same.Front().Value.(*queueEntry[T])
		}
	}
	if excess == nil && a.max > 0 && a.all.Len() > a.max {
		excess = a.oldest()
	}
	if excess != nil {
		a.remove(excess)
	}
	return added, excess
}

// remove takes x out, if it has not been already.
func (a *boundedQueue[T]) remove(x *queueEntry[T]) {
	if x.elem != nil {
		a.all.Remove(x.elem)
		x.elem = nil
	}
	a.exempt(x)
}

// exempt keeps x, but not for its address.
func (a *boundedQueue[T]) exempt(x *queueEntry[T]) {
	if x.addrElem == nil {
		return
	}
	same := a.byAddr[x.network]
	same.Remove(x.addrElem)
	x.addrElem = nil
	if same.Len() == 0 {
		delete(a.byAddr, x.network)
	}
}

// oldest is nil if there is none.
func (a *boundedQueue[T]) oldest() *queueEntry[T] {
	if e := a.all.Front(); e != nil {
		return e.Value.(*queueEntry[T])
	}
	return nil
}

func (a *boundedQueue[T]) len() int { return a.all.Len() }
