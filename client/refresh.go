package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hearthws/hearth/protocol"
)

// refreshPause is how long a client waits at least before it sends new credentials again.
const refreshPause = 5 * time.Second

// refresh sends new credentials on the connection, on a goroutine that ends with the connection.
// Only one runs at a time.
func (n *conn) refresh() {
	if n.refreshing.Swap(true) {
		return
	}
	n.c.wg.Go(func() {
		defer n.refreshing.Store(false)
		for n.ctx.Err() == nil {
			err := n.reauthenticate()
			if err == nil || n.ctx.Err() != nil {
				return
			}
			n.c.log.Warn("new credentials were not accepted", "err", err)
			if e, ok := errors.AsType[*Error](err); ok && e.Message == protocol.ErrAuthFailed.Message {
				return // the connection stays until the old credentials expire
			}
			if errors.Is(err, ErrStop) || errors.Is(err, errCredentials) {
				return
			}
			select {
			case <-time.After(refreshPause + rand.N(refreshPause)):
			case <-n.ctx.Done():
			}
		}
	})
}

// reauthenticate sends new credentials once, and waits for the answer.
func (n *conn) reauthenticate() error {
	c := n.c
	raw, err := c.credentials(n.ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.conn != n {
		c.mu.Unlock()
		return ErrDisconnected
	}
	r := &request{id: c.nextIDLocked(), done: make(chan answer, 1)}
	c.pending[r.id] = r
	c.controlLocked(protocol.AppendReply(nil, protocol.EventAuthenticate, raw, []byte(`"`+r.id+`"`)))
	c.mu.Unlock()
	select {
	case a := <-r.done:
		if a.err != nil {
			return a.err
		}
		return n.renewed(a.data)
	case <-n.ctx.Done():
		return ErrDisconnected
	}
}

// renewed notes when the new credentials expire.
func (n *conn) renewed(data json.RawMessage) error {
	var d struct{ Expires time.Time }
	if err := json.Unmarshal(orNull(data), &d); err != nil {
		return fmt.Errorf("read the answer to authenticate: %w", err)
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if n.c.conn == n && n.c.state.Phase == Connected {
		n.c.state.Expires = d.Expires
	}
	return nil
}
