package epoll

// A table finds connections by descriptor. Descriptors are small numbers, so it is an array, in pieces that come when
// needed. Owned by a loop.
type table struct {
	pieces []*[tablePiece]*connection
}

const tablePiece = 256

func (t *table) at(fd int32) *connection {
	if i := int(fd) / tablePiece; i < len(t.pieces) && t.pieces[i] != nil {
		return t.pieces[i][fd%tablePiece]
	}
	return nil
}

func (t *table) set(fd int32, c *connection) {
	i := int(fd) / tablePiece
	for i >= len(t.pieces) {
		t.pieces = append(t.pieces, nil)
	}
	if t.pieces[i] == nil {
		t.pieces[i] = new([tablePiece]*connection)
	}
	t.pieces[i][fd%tablePiece] = c
}

// all calls f for each connection. f may remove it.
func (t *table) all(f func(*connection)) {
	for _, piece := range t.pieces {
		if piece == nil {
			continue
		}
		for _, c := range piece {
			if c != nil {
				f(c)
			}
		}
	}
}
