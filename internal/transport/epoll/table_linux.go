package epoll

// A table finds connections by id. The lower half of an id is a descriptor, which is a small
// number, so the table is an array in pieces: 8 bytes per connection, where a Go map takes 24 to
// 36. Owned by a loop.
type table struct {
	pieces []*[tablePiece]*connection
}

const tablePiece = 256

// get returns the connection with this id, or nil. Another connection may have its descriptor.
func (t *table) get(id uint64) *connection {
	fd := uint32(id)
	if i := int(fd / tablePiece); i < len(t.pieces) && t.pieces[i] != nil {
		if c := t.pieces[i][fd%tablePiece]; c != nil && c.id() == id {
			return c
		}
	}
	return nil
}

// add adds c. No connection of the table has its descriptor.
func (t *table) add(c *connection) {
	i := int(c.fd / tablePiece)
	for i >= len(t.pieces) {
		t.pieces = append(t.pieces, nil)
	}
	if t.pieces[i] == nil {
		t.pieces[i] = new([tablePiece]*connection)
	}
	t.pieces[i][c.fd%tablePiece] = c
}

// remove removes c, which is in the table.
func (t *table) remove(c *connection) { t.pieces[c.fd/tablePiece][c.fd%tablePiece] = nil }

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
