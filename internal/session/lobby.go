package session

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/protocol"
)

// LobbyConfig bounds the clients that have not authenticated.
type LobbyConfig struct {
	Timeout time.Duration // from connecting to `authenticate`; three times as long from there on (protocol §4)
	Max     int           // clients, in all
	PerAddr int           // clients of one address; IPv6 addresses count by their /64
	Clock   *clock.Clock  // measures Timeout
}

// The Lobby holds the clients that have not authenticated yet, in the order of their deadlines: it closes those whose
// time is up, and those that have waited longest when there are too many. One timer serves all.
type Lobby struct {
	cfg LobbyConfig

	mu       sync.Mutex // guards the fields below and all guests; taken with no other lock held
	silent   guests     // no `authenticate` yet
	deciding guests     // the callbacks are at work
	passing  guests     // being admitted: no longer guests, but Sessions tells of them until the hub does
	count    int
	byAddr   map[netip.Prefix][]*guest // oldest first; only if addresses are bounded
	timer    *time.Timer
	fires    clock.Instant // when timer does; 0: it is not set
	closed   bool
}

// A guest is one unauthenticated session. All its state that a session needs only until then is here.
type guest struct {
	session    *Session
	protocol   string // that Session.Subprotocol returns
	messages   int    // guarded by session.mu
	addr       netip.Prefix
	deadline   clock.Instant
	list       *guests // nil: no longer in the lobby
	prev, next *guest
}

// guests is a list in the order of deadlines, which is that of arrival, since all have equally long.
type guests struct{ first, last *guest }

func (l *guests) push(g *guest) {
	g.list, g.prev, g.next = l, l.last, nil
	if l.last != nil {
		l.last.next = g
	} else {
		l.first = g
	}
	l.last = g
}

func (l *guests) remove(g *guest) {
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		l.first = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	} else {
		l.last = g.prev
	}
	g.list, g.prev, g.next = nil, nil, nil
}

// NewLobby makes an empty lobby.
func NewLobby(cfg LobbyConfig) *Lobby {
	return &Lobby{cfg: cfg, byAddr: make(map[netip.Prefix][]*guest)}
}

// enter adds g, and returns the session that has to go for it, if any: the oldest of the same address when that has
// too many, otherwise the oldest of all when those are too many.
func (l *Lobby) enter(g *guest, addr netip.Addr) (evicted *Session) {
	g.deadline = l.cfg.Clock.Now().Add(l.cfg.Timeout)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent.push(g)
	l.count++
	l.armLocked()
	var oldest *guest
	if l.cfg.Max > 0 && l.count > l.cfg.Max {
		if oldest = l.silent.first; oldest == g && l.deciding.first != nil {
			oldest = l.deciding.first
		}
	}
	if l.cfg.PerAddr > 0 {
		g.addr = network(addr)
		l.byAddr[g.addr] = append(l.byAddr[g.addr], g)
		if same := l.byAddr[g.addr]; len(same) > l.cfg.PerAddr {
			oldest = same[0]
		}
	}
	if oldest == nil {
		return nil
	}
	l.removeLocked(oldest)
	return oldest.session
}

// network is what counts as one address.
func network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && !a.Is4In6() {
		bits = 64
	}
	p, err := a.Unmap().Prefix(min(bits, a.Unmap().BitLen()))
	if err != nil {
		return netip.Prefix{} // no address: a pipe, a Unix socket
	}
	return p
}

// decide gives g the time that the callbacks may take.
func (l *Lobby) decide(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.list == nil {
		return
	}
	g.list.remove(g)
	g.deadline = l.cfg.Clock.Now().Add(3 * l.cfg.Timeout)
	l.deciding.push(g)
	l.armLocked()
}

// pass has g count no more, for nobody and nothing: it is to be told that it is connected, and must then not be closed to make
// room or for a deadline. False: it is about to be, or has ended.
func (l *Lobby) pass(g *guest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.list == nil {
		return false
	}
	l.removeLocked(g)
	l.passing.push(g)
	return true
}

// leave takes g out.
func (l *Lobby) leave(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(g)
}

func (l *Lobby) removeLocked(g *guest) {
	list := g.list
	if list == nil {
		return
	}
	list.remove(g)
	if list == &l.passing { // not counted
		return
	}
	l.count--
	same, bounded := l.byAddr[g.addr]
	if !bounded {
		return
	}
	if i := slices.Index(same, g); i >= 0 { // near the front: those who come first leave first
		same = slices.Delete(same, i, i+1)
	}
	if len(same) == 0 {
		delete(l.byAddr, g.addr)
	} else {
		l.byAddr[g.addr] = same
	}
}

// Count is the number of unauthenticated clients.
func (l *Lobby) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Sessions are the unauthenticated clients, those without `authenticate` first, and those that are being admitted last.
func (l *Lobby) Sessions() []*Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*Session, 0, l.count)
	for _, list := range []*guests{&l.silent, &l.deciding, &l.passing} {
		for g := list.first; g != nil; g = g.next {
			all = append(all, g.session)
		}
	}
	return all
}

// armLocked sets the timer to the next deadline, unless it fires before that anyway: then it finds nothing, and is set anew.
func (l *Lobby) armLocked() {
	var next clock.Instant
	for _, g := range []*guest{l.silent.first, l.deciding.first} {
		if g != nil && (next == 0 || g.deadline < next) {
			next = g.deadline
		}
	}
	if next == 0 || l.closed || (l.fires != 0 && next >= l.fires) {
		return
	}
	l.fires = next
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
	var late []*Session
	l.mu.Lock()
	for _, list := range []*guests{&l.silent, &l.deciding} {
		for g := list.first; g != nil && g.deadline <= now; g = list.first {
			l.removeLocked(g)
			late = append(late, g.session)
		}
	}
	l.fires = 0
	l.armLocked()
	l.mu.Unlock()
	for _, s := range late {
		s.env.Stats.AuthTimeouts.Add(1)
		s.Close(protocol.CloseAuthTimeout, protocol.ReasonAuthTimeout)
	}
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
