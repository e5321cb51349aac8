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
	AuthTimeout               time.Duration // from connecting to `authenticate`; three times as long from there on (protocol §4)
	MaxUnauthenticated        int           // clients, in all
	MaxUnauthenticatedPerAddr int           // clients of one address; IPv6 addresses count by their /64
	Clock                     *clock.Clock  // measures AuthTimeout
}

// The Lobby holds the clients that have not authenticated yet, in the order of their deadlines. It closes those whose
// time is up, and those that have waited longest when there are too many. One timer serves all.
//
// It also holds those of them that were closed, until their sockets are: a peer that does not answer the close frame has
// its socket for Env.CloseTimeout, unless there are too many such peers. Then the oldest is cut off.
type Lobby struct {
	cfg LobbyConfig

	mu      sync.Mutex // guards the fields below and all guests; taken with no other lock held
	stages  [left]clientList
	byAddr  map[netip.Prefix]*address // only if addresses are bounded
	cut     int                       // guests that were cut off, and whose sockets are not gone yet
	timer   *time.Timer
	timerAt clock.Instant // when timer does; 0: it is not set
	closed  bool
}

// A stage is how far a guest has come.
type stage uint8

const (
	waiting        stage = iota // has not sent `authenticate`
	authenticating              // the callbacks are running
	closing                     // closed, but the socket is still open
	admitting                   // being admitted: no longer counted, but listed by Sessions until the hub lists it
	left                        // not in the lobby
)

// A guest is one unauthenticated session, with the state that a session needs only until it is authenticated.
type pendingClient struct {
	session     *Session
	protocol    string // that Session.Subprotocol returns
	fromRequest any    // that Session.FromRequest returns
	messages    int    // guarded by session.mu
	network     netip.Prefix
	deadline    clock.Instant
	stage       stage
	cut         bool    // counted in Lobby.cut
	links       [2]link // in the lists of the lobby, and of the address
}

type link struct{ prev, next *pendingClient }

// guests is a list of guests, oldest first.
type clientList struct {
	first, last *pendingClient
	count       int
	list        int // which of a guest's links are used
}

// An address holds the guests of one network.
type address struct{ stages [admitting]clientList }

// active is how many guests count for the limit.
func (a *address) active() int { return a.stages[waiting].count + a.stages[authenticating].count }

func (a *address) empty() bool { return a.active()+a.stages[closing].count == 0 }

func (l *clientList) push(c *pendingClient) {
	c.links[l.list] = link{prev: l.last}
	if l.last != nil {
		l.last.links[l.list].next = c
	} else {
		l.first = c
	}
	l.last = c
	l.count++
}

func (l *clientList) remove(c *pendingClient) {
	at := &c.links[l.list]
	if at.prev != nil {
		at.prev.links[l.list].next = at.next
	} else {
		l.first = at.next
	}
	if at.next != nil {
		at.next.links[l.list].prev = at.prev
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

// closingLimit is how many guests may be closing where so many may wait.
func closingLimit(limit int) int { return limit/4 + 16 }

// enter adds g, and closes a client to make room, if there are too many: the oldest of the same address if that has too
// many, otherwise the oldest of all. Those that have not sent `authenticate` go first.
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
		oldest.session.evict()
	}
	abortAll(cut)
}

// toEvict is the guest to close for newest.
func toEvict(stages []clientList, newest *pendingClient) *pendingClient {
	if c := stages[waiting].first; c != newest {
		return c
	}
	if c := stages[authenticating].first; c != nil {
		return c
	}
	return newest
}

// evict closes a client to make room for another.
func (s *Session) evict() {
	s.CloseFor(&s.env.Stats.Evicted, protocol.CloseAuthTimeout, protocol.ReasonAuthTimeout)
}

func abortAll(sessions []*Session) {
	for _, s := range sessions {
		s.Abort()
	}
}

// MakeRoom closes clients so that one more connection may be opened, where excess connections more than allowed would
// then be open. It cuts off those that are closing, and closes those that have waited longest without `authenticate`. It
// reports false if there are too few of both.
func (l *Lobby) MakeRoom(excess int) bool {
	l.mu.Lock()
	excess -= l.cut // their sockets are about to be closed
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
		s.evict()
	}
	abortAll(cut)
	return excess <= 0
}

// Network is what counts as one address: of IPv6 the /64. The zero Prefix stands for no address, as a Unix socket has.
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

// decide gives g the time that the callbacks may take.
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

// pass ends the time of g as one that counts, has a deadline and may be closed to make room: it is about to be told that it is
// connected. False: it is about to be closed, or was.
func (l *Lobby) beginAdmission(c *pendingClient) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.stage >= closing {
		return false
	}
	l.moveLocked(c, admitting)
	return true
}

// leave takes g out: it is authenticated.
func (l *Lobby) admitted(c *pendingClient) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveLocked(c, left)
}

// close is told that g's session has ended. Its socket may still be open.
func (l *Lobby) close(c *pendingClient) {
	l.mu.Lock()
	var cut []*Session
	if c.stage < closing || c.stage == admitting {
		cut = l.closeLocked(c)
	}
	l.mu.Unlock()
	abortAll(cut)
}

// gone is told that the socket of g is closed.
func (l *Lobby) socketClosed(c *pendingClient) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveLocked(c, left)
	if c.cut {
		c.cut = false
		l.cut--
	}
}

// closeLocked makes g one of those that are closing. It returns the sessions to cut off, if there are too many of those.
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

// cutLocked takes g out. The caller cuts off its session, once the lobby is unlocked.
func (l *Lobby) cutLocked(c *pendingClient) *Session {
	l.moveLocked(c, left)
	c.cut = true
	l.cut++
	return c.session
}

// moveLocked moves g to another stage.
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
				a.stages[i].list = 1
			}
			l.byAddr[c.network] = a
		}
		a.stages[to].push(c)
	case a != nil && a.empty():
		delete(l.byAddr, c.network)
	}
}

// countLocked is the number of clients that count for the limit.
func (l *Lobby) countLocked() int { return l.stages[waiting].count + l.stages[authenticating].count }

// Count is the number of unauthenticated clients, without those that were closed.
func (l *Lobby) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.countLocked()
}

// Sessions are the unauthenticated clients, those without `authenticate` first, and those that are being admitted last.
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

// armLocked sets the timer to the next deadline, unless it fires before that anyway: then it finds nothing, and is set anew.
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

// expire closes the sessions whose time is up.
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
