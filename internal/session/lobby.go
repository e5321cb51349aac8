package session

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/protocol"
)

// LobbyConfig bounds the clients that have not authenticated.
type LobbyConfig struct {
	// AuthTimeout is the time from connecting to `authenticate`. From there on a client has three
	// times as long (protocol §4).
	AuthTimeout               time.Duration
	MaxUnauthenticated        int          // clients, in all
	MaxUnauthenticatedPerAddr int          // clients of one address, or of one /64 with IPv6
	Clock                     *clock.Clock // measures AuthTimeout
}

// The Lobby has the clients that have not authenticated, in the order of their deadlines. It
// closes clients whose deadline has passed, and, if there are too many, those that have waited
// longest. One timer serves all.
//
// The Lobby also keeps a client that was closed, until its socket is closed. A peer that does not
// answer the close frame keeps its socket for Timeouts.Close. If there are too many such peers, the
// Lobby cuts the connection of the oldest.
type Lobby struct {
	cfg LobbyConfig

	// mu guards the fields below and the entries of all clients. It is taken with no other lock
	// held.
	mu      sync.Mutex
	stages  [left]clientList
	byAddr  map[netip.Prefix]*address // only if MaxUnauthenticatedPerAddr is set
	cut     int                       // clients that were cut, and whose socket is still open
	timer   *time.Timer
	timerAt clock.Instant // when the timer fires; 0 if it is not set
	closed  bool
}

// A stage is the progress of a client in the lobby.
type stage uint8

const (
	waiting        stage = iota // has not sent `authenticate`
	authenticating              // the callbacks run
	closing                     // closed, but the socket is still open
	admitting                   // not counted; listed by Sessions until the hub lists the client
	left                        // not in the lobby
)

// A pendingClient is the lobby's entry of a session, with the state that the session needs only
// until the client is authenticated.
type pendingClient struct {
	session     *Session
	protocol    string // AuthRequest.Subprotocol
	fromRequest any    // AuthRequest.FromRequest
	messages    int    // received; guarded by session.mu
	resuming    bool   // a ticket is being decided about; guarded by session.mu
	network     netip.Prefix
	deadline    clock.Instant
	stage       stage
	cut         bool    // counted in Lobby.cut
	links       [2]link // in the lists of the lobby and of the address
}

type link struct{ prev, next *pendingClient }

// A clientList lists clients, oldest first.
type clientList struct {
	first, last *pendingClient
	count       int
	link        int // index in pendingClient.links
}

// An address has the clients of one network.
type address struct{ stages [admitting]clientList }

// active returns how many clients count for the limit.
func (a *address) active() int { return a.stages[waiting].count + a.stages[authenticating].count }

func (a *address) empty() bool { return a.active()+a.stages[closing].count == 0 }

func (l *clientList) push(c *pendingClient) {
	c.links[l.link] = link{prev: l.last}
	if l.last != nil {
		l.last.links[l.link].next = c
	} else {
		l.first = c
	}
	l.last = c
	l.count++
}

func (l *clientList) remove(c *pendingClient) {
	at := &c.links[l.link]
	if at.prev != nil {
		at.prev.links[l.link].next = at.next
	} else {
		l.first = at.next
	}
	if at.next != nil {
		at.next.links[l.link].prev = at.prev
	} else {
		l.last = at.prev
	}
	*at = link{}
	l.count--
}

// NewLobby makes an empty lobby.
func NewLobby(cfg LobbyConfig) *Lobby {
	return &Lobby{cfg: cfg, byAddr: make(map[netip.Prefix]*address)}
}

// closingLimit returns how many clients may be closing where limit clients may wait.
func closingLimit(limit int) int { return limit/4 + 16 }

// add adds c. If there are too many clients then, it closes one: the oldest of the same address if
// there are too many of that address, otherwise the oldest of all. Clients that have not sent
// `authenticate` are closed first.
func (l *Lobby) add(c *pendingClient, addr netip.Addr) {
	c.network = Network(addr)
	c.deadline = l.cfg.Clock.Now().Add(l.cfg.AuthTimeout)
	c.stage = left
	l.mu.Lock()
	l.moveLocked(c, waiting)
	l.armLocked()
	var oldest *pendingClient
	if l.cfg.MaxUnauthenticated > 0 && l.countLocked() > l.cfg.MaxUnauthenticated {
		oldest = toEvict(l.stages[:], c)
	}
	if same := l.byAddr[c.network]; same != nil && same.active() > l.cfg.MaxUnauthenticatedPerAddr {
		oldest = toEvict(same.stages[:], c)
	}
	var cut []*Session
	if oldest != nil {
		cut = l.closeLocked(oldest)
	}
	l.mu.Unlock()
	if oldest != nil {
		evict(oldest.session)
	}
	abortAll(cut)
}

// toEvict returns the client to close when newest has been added.
func toEvict(stages []clientList, newest *pendingClient) *pendingClient {
	if c := stages[waiting].first; c != newest {
		return c
	}
	if c := stages[authenticating].first; c != nil {
		return c
	}
	return newest
}

// evict closes a client to make room for another one.
func evict(s *Session) {
	s.CloseFor(&s.env.Stats.Evicted, protocol.CloseAuthTimeout, protocol.ReasonAuthTimeout)
}

func abortAll(sessions []*Session) {
	for _, s := range sessions {
		s.Abort()
	}
}

// MakeRoom makes room for one more connection, with which there would be excess connections more
// than allowed. It cuts the connections of clients that are closing, and then closes clients that
// have not sent `authenticate`, oldest first. It returns false if there are too few of both.
func (l *Lobby) MakeRoom(excess int) bool {
	l.mu.Lock()
	excess -= l.cut // their sockets will be closed soon
	var cut []*Session
	for excess > 0 && l.stages[closing].first != nil {
		cut = append(cut, l.cutLocked(l.stages[closing].first))
		excess--
	}
	var evicted []*Session
	for excess > 0 && l.stages[waiting].first != nil {
		oldest := l.stages[waiting].first
		evicted = append(evicted, oldest.session)
		cut = append(cut, l.closeLocked(oldest)...)
		excess--
	}
	l.mu.Unlock()
	for _, s := range evicted {
		evict(s)
	}
	abortAll(cut)
	return excess <= 0
}

// Network returns what the limits count as one address: for IPv6 the /64. The zero Prefix stands
// for no address, as a Unix socket has.
func Network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && !a.Is4In6() {
		bits = 64
	}
	p, err := a.Unmap().Prefix(min(bits, a.Unmap().BitLen()))
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// beginAuthentication gives c the time that the callbacks may take.
func (l *Lobby) beginAuthentication(c *pendingClient) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.stage != waiting {
		return
	}
	c.deadline = l.cfg.Clock.Now().Add(3 * l.cfg.AuthTimeout)
	l.moveLocked(c, authenticating)
	l.armLocked()
}

// beginAdmission takes c off the limits and deadlines, because it is about to be authenticated. It
// returns false if c was closed, or is about to be.
func (l *Lobby) beginAdmission(c *pendingClient) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.stage >= closing {
		return false
	}
	l.moveLocked(c, admitting)
	return true
}

// admitted removes c, which is authenticated.
func (l *Lobby) admitted(c *pendingClient) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveLocked(c, left)
}

// close moves c, whose session has ended, to the clients that are closing. Its socket may still be
// open.
func (l *Lobby) close(c *pendingClient) {
	l.mu.Lock()
	var cut []*Session
	if c.stage < closing || c.stage == admitting {
		cut = l.closeLocked(c)
	}
	l.mu.Unlock()
	abortAll(cut)
}

// socketClosed removes c, whose socket is closed.
func (l *Lobby) socketClosed(c *pendingClient) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveLocked(c, left)
	if c.cut {
		c.cut = false
		l.cut--
	}
}

// closeLocked moves c to the clients that are closing. It returns the sessions to cut if there
// are too many of those.
func (l *Lobby) closeLocked(c *pendingClient) (cut []*Session) {
	l.moveLocked(c, closing)
	if a := l.byAddr[c.network]; a != nil && a.stages[closing].count > closingLimit(l.cfg.MaxUnauthenticatedPerAddr) {
		cut = append(cut, l.cutLocked(a.stages[closing].first))
	}
	if l.cfg.MaxUnauthenticated > 0 && l.stages[closing].count > closingLimit(l.cfg.MaxUnauthenticated) {
		cut = append(cut, l.cutLocked(l.stages[closing].first))
	}
	return cut
}

// cutLocked removes c. The caller cuts the connection of its session after unlocking.
func (l *Lobby) cutLocked(c *pendingClient) *Session {
	l.moveLocked(c, left)
	c.cut = true
	l.cut++
	return c.session
}

// moveLocked moves c to a stage.
func (l *Lobby) moveLocked(c *pendingClient, to stage) {
	a := l.byAddr[c.network]
	if c.stage != left {
		l.stages[c.stage].remove(c)
		if a != nil && c.stage < admitting {
			a.stages[c.stage].remove(c)
		}
	}
	c.stage = to
	if to != left {
		l.stages[to].push(c)
	}
	switch {
	case l.cfg.MaxUnauthenticatedPerAddr > 0 && to < admitting:
		if a == nil {
			a = &address{}
			for i := range a.stages {
				a.stages[i].link = 1
			}
			l.byAddr[c.network] = a
		}
		a.stages[to].push(c)
	case a != nil && a.empty():
		delete(l.byAddr, c.network)
	}
}

// countLocked returns how many clients count for the limit.
func (l *Lobby) countLocked() int { return l.stages[waiting].count + l.stages[authenticating].count }

// Count returns the number of unauthenticated clients, without those that were closed.
func (l *Lobby) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.countLocked()
}

// Sessions returns the unauthenticated clients: first those that have not sent `authenticate`,
// and last those that are being admitted.
func (l *Lobby) Sessions() []*Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*Session, 0, l.countLocked())
	for _, at := range []stage{waiting, authenticating, admitting} {
		for c := l.stages[at].first; c != nil; c = c.links[0].next {
			all = append(all, c.session)
		}
	}
	return all
}

// armLocked sets the timer to the next deadline, unless it fires earlier anyway: then it finds no
// late client, and is set again.
func (l *Lobby) armLocked() {
	var next clock.Instant
	for _, c := range []*pendingClient{l.stages[waiting].first, l.stages[authenticating].first} {
		if c != nil && (next == 0 || c.deadline < next) {
			next = c.deadline
		}
	}
	if next == 0 || l.closed || (l.timerAt != 0 && next >= l.timerAt) {
		return
	}
	l.timerAt = next
	wait := next.Sub(l.cfg.Clock.Now())
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.expire)
	} else {
		l.timer.Reset(wait)
	}
}

// expire closes the clients whose deadline has passed.
func (l *Lobby) expire() {
	now := l.cfg.Clock.Now()
	var late, cut []*Session
	l.mu.Lock()
	for _, at := range []stage{waiting, authenticating} {
		for c := l.stages[at].first; c != nil && c.deadline <= now; c = l.stages[at].first {
			late = append(late, c.session)
			cut = append(cut, l.closeLocked(c)...)
		}
	}
	l.timerAt = 0
	l.armLocked()
	l.mu.Unlock()
	for _, s := range late {
		s.CloseFor(&s.env.Stats.AuthTimeouts, protocol.CloseAuthTimeout, protocol.ReasonAuthTimeout)
	}
	abortAll(cut)
}

// Close stops the timer.
func (l *Lobby) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
}
