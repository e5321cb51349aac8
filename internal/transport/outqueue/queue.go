// Package outqueue has the outgoing queue of a connection, which holds the bytes that its socket
// has not taken yet, and a queue of deadlines. Both transports use it.
package outqueue

const (
	// mergeAfter is how many small pieces a queue keeps as references before it joins them.
	mergeAfter = 512
	// mergeBelow is the average size below which a copy takes less memory than the references,
	// which are 24 bytes each.
	mergeBelow = 64
	// keepCap is the largest capacity, in references, that an empty queue keeps.
	keepCap = 64
)

// A Queue holds references to bytes that wait to be written, in order. It never changes the bytes.
// The zero value is an empty queue. Not safe for concurrent use.
//
// Its memory is bounded by the number of bytes: it joins tiny pieces. Otherwise a peer that causes
// many tiny writes and reads none of them, such as pongs of two bytes, would take twelve times its
// limit in references.
type Queue struct {
	refs     [][]byte
	head     int // refs[:head] are written
	written  int // bytes of refs[head] that are written
	unmerged int // refs[unmerged:] were pushed since the last merge
	size     int // bytes that wait
}

// Len returns the number of bytes that wait.
func (q *Queue) Len() int { return q.size }

// Refs returns the number of pieces that wait.
func (q *Queue) Refs() int { return len(q.refs) - q.head }

// Push adds p, which must not change afterwards. It ignores an empty p.
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

// Next returns the next bytes to write: a single piece without a copy, or as many pieces as fit,
// copied into scratch. The result is empty if the queue is, and other calls do not change it. Call
// Advance with the number of bytes that were written.
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

// Vector appends up to n pieces to dst, for a write that gathers them.
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

// Advance removes the first n bytes, which have been written. n is at most Len.
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

// Recall removes and returns the pieces behind the first n bytes. If a piece is partly written, or
// partly within the n bytes, cut returns how many of its bytes stay. At least the sent bytes, which
// are those two parts together, do.
func (q *Queue) Recall(n int, cut func(piece []byte, sent int) int) (taken [][]byte) {
	i, sent := q.head, q.written+n
	for i < len(q.refs) && sent >= len(q.refs[i]) {
		sent -= len(q.refs[i])
		i++
	}
	if i < len(q.refs) && sent > 0 {
		piece := q.refs[i]
		keep := min(max(cut(piece, sent), sent), len(piece))
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

// Reset empties the queue. It keeps a small capacity for the next use.
func (q *Queue) Reset() {
	if cap(q.refs) > keepCap {
		*q = Queue{}
		return
	}
	clear(q.refs)
	*q = Queue{refs: q.refs[:0]}
}

// compact moves the waiting pieces to the front of the slice.
func (q *Queue) compact() {
	n := copy(q.refs, q.refs[q.head:])
	clear(q.refs[n:])
	q.refs = q.refs[:n]
	q.unmerged = max(q.unmerged-q.head, 0)
	q.head = 0
}

// merge joins the pieces pushed since the last merge into one, if they are small. It copies each
// byte at most once.
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
