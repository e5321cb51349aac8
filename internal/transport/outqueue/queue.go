// Package outqueue keeps what a connection still owes: the bytes that its socket has not taken, and the moment at which
// it is given up. Both transports build on it.
package outqueue

const (
	// mergeAfter is how many small writes a queue keeps as references before it copies them into one piece.
	mergeAfter = 512
	// mergeBelow is the average size under which copying costs less memory than the references (24 bytes each) do.
	mergeBelow = 64
	// keepCap is how many references an emptied queue keeps room for.
	keepCap = 64
)

// A Queue holds, in order, references to bytes that wait to be written. It never changes them. The zero value is an
// empty queue. Not safe for concurrent use.
//
// Memory is bounded by the bytes that wait: a peer that provokes very many tiny writes and reads none of them (pongs of
// two bytes, say) would otherwise cost twelve times its limit in references.
type Queue struct {
	refs     [][]byte
	head     int // refs[:head] are gone
	written  int // this much of refs[head] is gone
	unmerged int // refs[loose:] were pushed since the last merge
	size     int
}

// Len is the number of bytes that wait.
func (q *Queue) Len() int { return q.size }

// Refs is the number of pieces that wait.
func (q *Queue) Refs() int { return len(q.refs) - q.head }

// Push adds p, which must not change any more. An empty p is ignored.
func (q *Queue) Push(p []byte) {
	if len(p) == 0 {
		return
	}
	if q.head >= keepCap && q.head*2 >= len(q.refs) {
		q.compact()
	}
	if len(q.refs)-q.unmerged >= mergeAfter {
		q.merge()
	}
	q.refs = append(q.refs, p)
	q.size += len(p)
}

// Next returns bytes to write now: a single piece as it is, several copied one after the other into scratch, as many as
// fit. It is empty when the queue is. Other calls do not change the result; Advance tells how much of it was written.
func (q *Queue) Next(scratch []byte) []byte {
	if q.size == 0 {
		return nil
	}
	first := q.refs[q.head][q.written:]
	if q.Refs() == 1 || len(first)+len(q.refs[q.head+1]) > cap(scratch) {
		return first
	}
	scratch = append(scratch[:0], first...)
	for _, p := range q.refs[q.head+1:] {
		if len(scratch)+len(p) > cap(scratch) {
			break
		}
		scratch = append(scratch, p...)
	}
	return scratch
}

// Vector appends the first n pieces to dst, for a gathering write.
func (q *Queue) Vector(dst [][]byte, n int) [][]byte {
	for i, p := range q.refs[q.head:] {
		if i == n {
			break
		}
		if i == 0 {
			p = p[q.written:]
		}
		dst = append(dst, p)
	}
	return dst
}

// Advance drops the first n bytes, which have been written. n is at most Len.
func (q *Queue) Advance(n int) {
	q.size -= n
	if q.size == 0 {
		q.Reset()
		return
	}
	n += q.written
	for n > 0 && n >= len(q.refs[q.head]) {
		n -= len(q.refs[q.head])
		q.refs[q.head] = nil
		q.head++
	}
	q.written = n
}

// Recall removes what waits behind the first n bytes, and returns it. When those, or what was written before, end within a
// piece, cut says how much of the piece stays: at least as much as is gone of it.
func (q *Queue) Recall(n int, cut func(piece []byte, gone int) int) (taken [][]byte) {
	i, gone := q.head, q.written+n
	for i < len(q.refs) && gone >= len(q.refs[i]) {
		gone -= len(q.refs[i])
		i++
	}
	if i < len(q.refs) && gone > 0 {
		piece := q.refs[i]
		keep := min(max(cut(piece, gone), gone), len(piece))
		if q.refs[i] = piece[:keep:keep]; keep < len(piece) {
			taken = append(taken, piece[keep:])
		}
		i++
	}
	taken = append(taken, q.refs[i:]...)
	clear(q.refs[i:])
	q.refs, q.unmerged = q.refs[:i], min(q.unmerged, i)
	for _, p := range taken {
		q.size -= len(p)
	}
	if q.size == 0 {
		q.Reset()
	}
	return taken
}

// Reset empties the queue, and keeps a little room for the next use.
func (q *Queue) Reset() {
	if cap(q.refs) > keepCap {
		*q = Queue{}
		return
	}
	clear(q.refs)
	*q = Queue{refs: q.refs[:0]}
}

// compact moves what waits to the front of the slice.
func (q *Queue) compact() {
	n := copy(q.refs, q.refs[q.head:])
	clear(q.refs[n:])
	q.refs = q.refs[:n]
	q.unmerged = max(q.unmerged-q.head, 0)
	q.head = 0
}

// merge copies what was pushed since the last merge into one piece, if the pieces are small. Each byte is copied here
// at most once.
func (q *Queue) merge() {
	from := max(q.unmerged, q.head)
	if from == q.head && q.written > 0 {
		from++
	}
	size := 0
	for _, p := range q.refs[from:] {
		size += len(p)
	}
	if n := len(q.refs) - from; n > 1 && size < n*mergeBelow {
		all := make([]byte, 0, size)
		for _, p := range q.refs[from:] {
			all = append(all, p...)
		}
		clear(q.refs[from:])
		q.refs = append(q.refs[:from], all)
	}
	q.unmerged = len(q.refs)
}
