package api

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
)

// maxKeys bounds the keys that a window remembers.
const maxKeys = 10_000

// A window remembers the keys of messages that were sent, for broker.KeyLifetime, so that a
// repeated request does not send again. If there are more than maxKeys, it forgets the oldest. It
// is safe for concurrent use.
type window struct {
	mu     sync.Mutex // guards the fields below
	byKey  map[string]*list.Element
	oldest list.List // of *use, in the order in which they began
}

// A use is one key.
type use struct {
	key   string
	print [sha256.Size]byte // of the message
	began time.Time
	sent  bool // false while the request is in progress
}

func newWindow() *window { return &window{byKey: map[string]*list.Element{}} }

// begin registers the use of a key. repeated means that the message was sent before; otherwise the
// caller sends it, and then calls end.
func (w *window) begin(key string, print [sha256.Size]byte) (repeated bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.forgetLocked(now)
	if e, ok := w.byKey[key]; ok {
		switch u := e.Value.(*use); {
		case u.print != print:
			return false, errKeyReused
		case !u.sent:
			return false, errInProgress
		default:
			return true, nil
		}
	}
	if len(w.byKey) >= maxKeys {
		return false, errNoMemory // all of them are in progress
	}
	w.byKey[key] = w.oldest.PushBack(&use{key: key, print: print, began: now})
	return false, nil
}

// end records the result of a use that begin has registered. After a failure the key may be used
// again.
func (w *window) end(key string, sent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, ok := w.byKey[key]
	if !ok {
		return
	}
	if e.Value.(*use).sent = sent; !sent {
		w.removeLocked(e)
	}
}

// forgetLocked removes the keys that are too old, and the oldest ones that leave no room for
// another one. It keeps those in progress.
func (w *window) forgetLocked(now time.Time) {
	for e := w.oldest.Front(); e != nil; {
		u, next := e.Value.(*use), e.Next()
		if now.Sub(u.began) < broker.KeyLifetime && len(w.byKey) < maxKeys {
			return
		}
		if u.sent {
			w.removeLocked(e)
		}
		e = next
	}
}

func (w *window) removeLocked(e *list.Element) {
	delete(w.byKey, w.oldest.Remove(e).(*use).key)
}
