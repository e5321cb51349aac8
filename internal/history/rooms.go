// Package history delivers the messages of rooms with history to the clients of one node: in the
// order of their offsets, without gaps and duplicates, also when the broker has lost some. It lets
// a client join a room from a position, so that the client gets what it has missed and then the
// live messages.
//
// Rooms has a small state for each room that has members on this node: the position of the last
// message that went to the hub. A message that does not follow it is a gap. Then the messages that
// arrive wait until the fetcher has read the missing ones from the history.
package history

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

const (
	// checkInterval is the time between two checks of all rooms for messages that got lost without
	// a trace. A check of very many rooms takes longer, up to checkTime and the time of the reads:
	// brokers forget the log of a room without messages when it is not read for minutes.
	checkInterval = 30 * time.Second
	checkTime     = 2 * time.Minute

	// readTimeout is how long a read of the history may take.
	readTimeout = 5 * time.Second

	// giveUpAfter is how long the fetcher tries to read missing messages while newer ones wait.
	giveUpAfter = 10 * time.Second

	// readPause is the time between two attempts of the fetcher, and at most between two reads of a
	// check.
	readPause = 100 * time.Millisecond

	// fetchRooms is how many rooms one read of the fetcher asks for.
	fetchRooms = 64

	// fetchMessages and fetchBytes bound what the fetcher reads for one room. If more is missing,
	// the clients are told that there is a gap.
	fetchMessages = 10_000
	fetchBytes    = 16 << 20

	// maxWaiting and maxWaitingBytes bound the messages of one room that wait for the fetcher, and
	// those that are kept for joins in progress.
	maxWaiting      = 1024
	maxWaitingBytes = 1 << 20
)

// Config configures Rooms. All fields are required.
type Config struct {
	History broker.History

	// Send sends messages of one room to its members on this node, and returns how many of the
	// messages it has sent, at least one. Its error means that some members did not get one of
	// these. Then it has not sent the rest: the members that recover must not get later messages
	// before Interrupt has taken them out of the room, or they would have a gap.
	Send func(room string, ms []protocol.Message) (sent int, err error)

	// Interrupt takes the clients that get positions out of the room, and tells them. Their
	// positions say from where they can recover. It returns how many there were: the holds of their
	// memberships end. It is called with a lock of Rooms held: it must not block, and must not call
	// methods of Rooms.
	Interrupt func(room string) (clients int)

	// Lost reports messages that could not be recovered, for clients that get no positions. It must
	// not block.
	Lost func(l broker.Loss)

	Log *slog.Logger
}

// Stats are counters of Rooms.
type Stats struct {
	Fetched     atomic.Uint64 // messages that the broker lost, and that were read from the history
	Gaps        atomic.Uint64 // times that a room had missing messages that could not be recovered
	Recovered   atomic.Uint64 // messages that were read for clients that joined
	Unrecovered atomic.Uint64 // rooms that clients joined without what they had missed
}

// Rooms has the state of the rooms with history that have members on this node. Its methods may be
// called from any goroutine.
type Rooms struct {
	// Set by New, then read-only.
	cfg    Config
	ctx    context.Context // of the reads; ends with Close
	cancel context.CancelFunc
	reads  chan struct{} // has a place for each join that may read at a time

	stats      Stats
	goroutines sync.WaitGroup // fetch, checkLoop, readAllFirst; added to under mu while not closed

	// mu guards the fields below and all rooms. While it is held, messages are passed to the hub,
	// which has locks of its own.
	mu       sync.Mutex
	rooms    map[string]*room
	late     []*room // those behind, and not in a read
	fetching bool    // the goroutine fetch exists
	started  bool
	closed   bool
}

// A room is guarded by Rooms.mu.
type room struct {
	name  string
	holds int // memberships and joins on this node; the room is forgotten when there are none

	// at is the position of the last message that went to the hub. It is the zero Position if none
	// has, and the first read has failed: then the next message is the first, whatever its offset.
	at protocol.Position

	first chan struct{} // closed when the first read has ended; nil from then on

	behind  bool      // messages after at may be missing: the fetcher reads them
	again   bool      // the read that is in progress may be too early
	failing time.Time // since when the reads fail; zero if the last one did not
	waiting queue     // messages that arrived while behind, or before the end of the first read
	joins   int       // joins in progress
	recent  queue     // messages that went to the hub while joins were in progress
}

// New makes Rooms without rooms.
func New(cfg Config) *Rooms {
	r := &Rooms{cfg: cfg, rooms: make(map[string]*room), reads: make(chan struct{}, maxReads)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Stats returns the counters.
func (r *Rooms) Stats() *Stats { return &r.stats }

// Has reports whether the room has history.
func (r *Rooms) Has(room string) bool { return r.cfg.History.HasHistory(room) }

// Start starts the checks for lost messages. They end with Close.
func (r *Rooms) Start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.started && !r.closed {
		r.started = true
		r.goroutines.Go(r.checkLoop) // ends with Close, which waits for it
	}
}

// Close ends all reads and waits for the goroutines. Messages that are missing stay missing, as
// those that are published later.
func (r *Rooms) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.goroutines.Wait()
}

// Hold begins to keep the state of the rooms, once for each membership. The broker must deliver
// their messages already. Rooms without history are ignored. For rooms that had no members on this
// node, the current position is read. Hold waits for that until ctx is done; the read goes on, for
// other members that the rooms may have meanwhile.
func (r *Rooms) Hold(ctx context.Context, rooms ...string) {
	for _, first := range r.hold(rooms) {
		select {
		case <-first: // within readTimeout for each read
		case <-ctx.Done():
			return
		}
	}
}

// hold is Hold without the wait. It returns what to wait for.
func (r *Rooms) hold(rooms []string) (wait []chan struct{}) {
	var unread []*room
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range rooms {
		if !r.Has(name) {
			continue
		}
		rm := r.rooms[name]
		if rm == nil {
			rm = &room{name: name}
			r.rooms[name] = rm
			if !r.closed {
				rm.first = make(chan struct{})
				unread = append(unread, rm)
			}
		}
		if rm.first != nil {
			wait = append(wait, rm.first)
		}
		rm.holds++
	}
	if len(unread) > 0 {
		// Ends when all are read, or a read has failed, or with Close, which waits for it.
		r.goroutines.Go(func() { r.readAllFirst(unread) })
	}
	return wait
}

// readAllFirst reads the current positions of rooms without members. When a read has failed, it
// tries no other, so that the clients do not wait for one timeout after the other.
func (r *Rooms) readAllFirst(rooms []*room) {
	var err error
	for batch := range slices.Chunk(rooms, fetchRooms) {
		err = r.readFirst(batch, err)
	}
	if err != nil {
		r.cfg.Log.Warn("positions of rooms not read: clients cannot recover messages in them before the next message", "error", err)
	}
}

// readFirst reads the current positions of rooms without members, unless failed is an error, which
// it then returns. No member misses the messages before them.
func (r *Rooms) readFirst(rooms []*room, failed error) error {
	requests := make([]broker.HistoryRequest, 0, len(rooms))
	held := make([]*room, 0, len(rooms))
	r.mu.Lock()
	for _, rm := range rooms {
		if r.rooms[rm.name] == rm { // otherwise all members have left
			held = append(held, rm)
			requests = append(requests, broker.HistoryRequest{Room: rm.name})
		}
	}
	r.mu.Unlock()
	var parts []broker.HistoryPart
	if failed == nil && len(held) > 0 {
		parts, failed = r.read(r.ctx, requests)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, rm := range held {
		close(rm.first)
		rm.first = nil
		if r.rooms[rm.name] != rm { // it lost its members meanwhile, and may have new ones
			continue
		}
		if failed == nil {
			rm.at = parts[i].Position
		}
		r.sendWaitingLocked(rm, 0)
	}
	return failed
}

// Release undoes one Hold of each room.
func (r *Rooms) Release(rooms ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range rooms {
		if rm := r.rooms[name]; rm != nil {
			r.releaseLocked(rm, 1)
		}
	}
}

// releaseLocked ends n holds of a room, and forgets a room without any.
func (r *Rooms) releaseLocked(rm *room, n int) {
	if rm.holds -= n; rm.holds == 0 {
		delete(r.rooms, rm.name)
	}
}

// Tracks reports whether lost messages of the room are recovered, so that nothing else has to
// report them.
func (r *Rooms) Tracks(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tracksLocked(name)
}

func (r *Rooms) tracksLocked(name string) bool {
	rm := r.rooms[name]
	return rm != nil && rm.at != protocol.Position{}
}

// Deliver takes messages that have a position, all of the same room. The broker calls it, in the
// order of arrival. The memory of the messages must be valid only until Deliver returns.
func (r *Rooms) Deliver(ms []protocol.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rm := r.rooms[ms[0].Target]
	if rm == nil {
		return // there are no members here
	}
	if rm.behind || rm.first != nil {
		rm.waiting.push(ms)
		return
	}
	if rest := r.sendLocked(rm, ms); len(rest) > 0 {
		rm.waiting.push(rest)
		r.fetchLocked(rm)
	}
}

// sendLocked passes messages to the hub, without those that were passed before, up to the first
// that does not follow the one before it. It returns that message and all after it.
func (r *Rooms) sendLocked(rm *room, ms []protocol.Message) (rest []protocol.Message) {
	for len(ms) > 0 && rm.at.Epoch == ms[0].Position.Epoch && ms[0].Position.Offset <= rm.at.Offset {
		ms = ms[1:]
	}
	n := 0
	at := rm.at
	for n < len(ms) && (at == protocol.Position{} || ms[n].Position == next(at)) {
		at = ms[n].Position
		n++
	}
	if n == 0 {
		return ms
	}
	if rm.at.Offset = at.Offset; rm.at.Epoch != at.Epoch {
		rm.at.Epoch = strings.Clone(at.Epoch) // that of the message is valid until Deliver returns
	}
	if rm.joins > 0 {
		rm.recent.push(ms[:n])
	}
	for left := ms[:n]; len(left) > 0; {
		sent, err := r.cfg.Send(rm.name, left)
		if err != nil {
			r.interruptLocked(rm, uint64(sent), err)
		}
		left = left[sent:]
	}
	if n < len(ms) { // what follows may be a repetition
		return r.sendLocked(rm, ms[n:])
	}
	return nil
}

func next(p protocol.Position) protocol.Position {
	return protocol.Position{Offset: p.Offset + 1, Epoch: p.Epoch}
}

// interruptLocked reports messages that some clients of the room did not get. messages is their
// number, 0 if it is not known.
func (r *Rooms) interruptLocked(rm *room, messages uint64, cause error) {
	r.stats.Gaps.Add(1)
	r.releaseLocked(rm, r.cfg.Interrupt(rm.name))
	now := time.Now()
	r.cfg.Lost(broker.Loss{Messages: messages, Channels: []string{protocol.RoomChannel(rm.name)}, Since: now, Until: now, Cause: cause})
}

// Lost tells that the broker may have lost messages of the channels; nil stands for any. The
// messages of rooms with history are read from the history. It returns the channels of all other
// targets, for which the loss has to be reported; report is false if there are none of these.
func (r *Rooms) Lost(channels []string) (others []string, report bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if channels == nil {
		for _, rm := range r.rooms {
			r.fetchLocked(rm)
		}
		return nil, true
	}
	for _, channel := range channels {
		t, name, ok := protocol.ParseChannel(channel)
		switch {
		case !ok || t != protocol.TypeRoom || !r.Has(name):
			others = append(others, channel)
		case r.tracksLocked(name):
			r.fetchLocked(r.rooms[name])
		case r.rooms[name] != nil: // from where to read is not known
			others = append(others, channel)
		}
	}
	return others, len(others) > 0
}

// An unrecoveredError says why messages could not be recovered.
type unrecoveredError struct{ reason string }

// Error implements error.
func (e unrecoveredError) Error() string {
	return "missed messages of a room could not be recovered: " + e.reason
}
