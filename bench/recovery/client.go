package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

// A conversation speaks the protocol of one kind of server, over one connection of a client. Its
// methods are called by the goroutine of the client. They call the methods of the session.
type conversation interface {
	// begin sends the first messages.
	begin() error

	// handle handles one message of the server.
	handle(payload []byte) error

	// heartbeat sends a message that the server answers at once.
	heartbeat() error
}

// A dialect is a kind of conversation.
type dialect struct {
	path  string // of the URL
	speak func(*session) conversation
}

// A position is the place of a message in the history of a room.
type position struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
}

// The ways in which a client loses its connection.
const (
	causeReset   = "reset"   // the client cuts it
	causeSilence = "silence" // the client does not read from it any more, and leaves it open
	causeClose   = "close"   // the client closes it
	causeRestart = "restart" // the server closed it with 1012 or 1001
	causeLost    = "lost"    // it ended without a close frame, or with another one
	causeDead    = "dead"    // the server did not answer a heartbeat
)

// ownCauses are those of a client that is cut, in turn.
var ownCauses = []string{causeReset, causeSilence, causeClose}

// An absence is a time in which a client had no connection.
type absence struct {
	cause   string
	node    int       // the number of the node that the client lost
	lost    time.Time // when the client noticed
	tried   time.Time // when it began to connect again
	back    time.Time // when it had joined and received the recovered messages, or zero
	resumed bool      // by a ticket
}

const (
	firstBackoff   = 500 * time.Millisecond // the longest wait before the first attempt
	longestBackoff = 10 * time.Second
	answerTimeout  = 10 * time.Second // for the answers to authenticate and join
)

var (
	errCut    = errors.New("it is time to cut the connection")
	errDead   = errors.New("the server does not answer heartbeats")
	errAnswer = errors.New("the server does not answer authenticate or join")
)

// A client is one client over all its connections. It belongs to the goroutine that runs it. When
// that has ended, its results can be read.
type client struct {
	*crowd
	number int
	rooms  []string
	random *rand.Rand

	// What the client keeps between two connections.
	ledgers   map[string]*ledger  // of each of its rooms
	positions map[string]position // of the rooms that have one
	ticket    string              // the newest, or empty
	node      int                 // the number of the node of its last connection, or -1
	cuts      int                 // how often it was cut
	stale     *socket             // a connection that it left open, or nil

	absences []absence
}

// run connects again and again, until ctx is done.
func (c *client) run(ctx context.Context) {
	defer func() {
		if c.stale != nil {
			c.stale.reset()
		}
	}()
	for attempt := 0; ctx.Err() == nil; {
		s, err := c.connect(ctx)
		if err == nil {
			err = s.serve(ctx)
			s.end()
			if s.ready {
				attempt = 0
			}
			c.leave(ctx, s, err)
		} else {
			c.notice(err)
		}
		if attempt = c.nextAttempt(attempt, err); attempt > 0 {
			longest := min(longestBackoff, firstBackoff<<min(attempt-1, 10))
			_ = sleep(ctx, time.Duration(c.random.Int64N(int64(longest))))
		}
	}
}

// nextAttempt returns the number of the attempt to connect that follows err. The first one of a
// client that was cut, or closed because of a restart, has number 0 and begins at once.
func (c *client) nextAttempt(attempt int, err error) int {
	var closed *closedError
	if errors.Is(err, errCut) || errors.As(err, &closed) && closed.restart() {
		return 0
	}
	return attempt + 1
}

// restart reports whether the server closes all clients because it shuts down.
func (e *closedError) restart() bool { return e.code == 1012 || e.code == 1001 }

// connect opens a connection to another node than the last one.
func (c *client) connect(ctx context.Context) (*session, error) {
	addrs := *c.addrs.Load()
	node := c.random.IntN(len(addrs))
	if node == c.node {
		node = (node + 1) % len(addrs)
	}
	first := c.node < 0
	c.node = node
	if at := len(c.absences) - 1; at >= 0 && c.absences[at].tried.IsZero() {
		c.absences[at].tried = time.Now()
	}
	if first { // the measure begins when all clients are connected, so they take turns
		select {
		case c.connecting <- struct{}{}:
			defer func() { <-c.connecting }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	socket, err := dial(ctx, addrs[node], c.dialect.path)
	if err != nil {
		return nil, err
	}
	s := &session{client: c, socket: socket, begun: time.Now()}
	s.sent = s.begun
	if c.every > 0 {
		s.cutAt = s.begun.Add(c.every/2 + time.Duration(c.random.Int64N(int64(c.every))))
	}
	s.talk = c.dialect.speak(s)
	return s, nil
}

// leave ends a connection after err, and waits if the client was cut.
func (c *client) leave(ctx context.Context, s *session, err error) {
	if ctx.Err() != nil {
		s.socket.reset()
		return
	}
	a := absence{cause: causeLost, node: c.node, lost: time.Now()}
	var closed *closedError
	switch {
	case errors.Is(err, errCut):
		a.cause = ownCauses[(c.number+c.cuts)%len(ownCauses)]
		c.cuts++
	case errors.As(err, &closed) && closed.restart():
		a.cause = causeRestart
	case errors.Is(err, errDead):
		a.cause = causeDead
	default:
		c.notice(err)
	}
	switch a.cause {
	case causeClose:
		s.socket.close()
	case causeSilence:
		if c.stale != nil {
			c.stale.reset()
		}
		c.stale = s.socket
	default:
		s.socket.reset()
	}
	if s.ready { // otherwise the last absence goes on
		c.absences = append(c.absences, a)
	}
	if errors.Is(err, errCut) {
		_ = sleep(ctx, c.away)
	}
}

// A session is one connection of a client.
type session struct {
	*client
	socket *socket
	talk   conversation

	begun time.Time
	cutAt time.Time // zero: never
	sent  time.Time // the last message to the server

	// Set when the server has promised to answer heartbeats: the client sends one at an interval
	// after its last message, and gives up at a timeout after that.
	interval, timeout time.Duration

	beat     time.Time // when it was sent; zero if something has arrived since
	deadline time.Time // of the socket

	ready   bool // the rooms are joined and the recovered messages received
	joined  bool
	resumed bool
	pending []pending
}

// A pending is a number of recovered messages that must arrive next.
type pending struct {
	room string
	left int
}

// serve handles messages until the connection ends.
func (s *session) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.socket.reset)
	defer stop()
	if err := s.talk.begin(); err != nil {
		return err
	}
	for {
		if d := s.nextDeadline(); !d.Equal(s.deadline) {
			s.deadline = d
			if err := s.socket.setDeadline(d); err != nil {
				return err
			}
		}
		payload, err := s.socket.receive(func() { s.beat = time.Time{} })
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = s.expire(time.Now())
		} else if err == nil {
			err = s.talk.handle(payload)
		}
		if err != nil {
			return err
		}
	}
}

// end notes that the connection has ended.
func (s *session) end() {
	if s.ready {
		s.crowd.ready.Add(-1)
	}
}

// send sends one message.
func (s *session) send(text []byte) error {
	s.sent = time.Now()
	return s.socket.send(text)
}

// nextDeadline returns the time at which the client has to do something. Zero: never.
func (s *session) nextDeadline() time.Time {
	if !s.ready {
		return s.begun.Add(answerTimeout)
	}
	next := s.cutAt
	if s.interval > 0 {
		at := s.sent.Add(s.interval)
		if !s.beat.IsZero() {
			at = s.beat.Add(s.timeout)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// expire acts on the deadlines that have passed.
func (s *session) expire(now time.Time) error {
	switch {
	case !s.ready && now.Sub(s.begun) >= answerTimeout:
		return errAnswer
	case !s.cutAt.IsZero() && !now.Before(s.cutAt):
		if s.cutting.Load() {
			return errCut
		}
		s.cutAt = time.Time{}
	case s.interval == 0:
	case !s.beat.IsZero():
		if now.Sub(s.beat) >= s.timeout {
			return errDead
		}
	case now.Sub(s.sent) >= s.interval:
		if err := s.talk.heartbeat(); err != nil {
			return err
		}
		s.beat = now
	}
	return nil
}

// promise notes what the server says of heartbeats.
func (s *session) promise(interval, timeout time.Duration) { s.interval, s.timeout = interval, timeout }

// join notes that the client has joined rooms, and how many recovered messages follow, room after
// room. all says that it has joined all of its rooms.
func (s *session) join(all bool, recovered ...pending) {
	s.joined = s.joined || all
	for _, p := range recovered {
		if p.left > 0 {
			s.pending = append(s.pending, p)
		}
	}
	s.checkReady()
}

// checkReady ends the absence of the client when it has all messages.
func (s *session) checkReady() {
	if s.ready || !s.joined || len(s.pending) > 0 {
		return
	}
	s.ready = true
	s.crowd.ready.Add(1)
	if at := len(s.absences) - 1; at >= 0 && s.absences[at].back.IsZero() {
		s.absences[at].back, s.absences[at].resumed = time.Now(), s.resumed
	}
}

// report notes that the server has said that messages of a room may be missing.
func (s *session) report(room string) {
	if l := s.ledgers[room]; l != nil {
		l.report()
	}
}

// message counts a message of a room, with its position if it has one.
func (s *session) message(room string, number int, at position) {
	l := s.ledgers[room]
	if l == nil || number < 1 || number > maxNumber {
		s.violation("a message of room %q with number %d", room, number)
		return
	}
	if before, known := s.positions[room]; at != (position{}) {
		if known && (at.Epoch != before.Epoch || at.Offset <= before.Offset) {
			s.violation("%s: position %d %s after %d %s", room, at.Offset, at.Epoch, before.Offset, before.Epoch)
		}
		s.positions[room] = at
	}
	recovered := len(s.pending) > 0
	if recovered {
		first := &s.pending[0]
		if first.room != room {
			s.violation("a message of %s before %d recovered messages of %s", room, first.left, first.room)
			if i := slices.IndexFunc(s.pending, func(p pending) bool { return p.room == room }); i >= 0 {
				first = &s.pending[i]
			}
		}
		if first.left--; first.left == 0 {
			s.pending = slices.DeleteFunc(s.pending, func(p pending) bool { return p.left == 0 })
		}
	}
	if l.add(number, recovered) {
		s.received.Add(1)
	}
	s.checkReady()
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
