package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// conn is one connection to the server. Its fields do not change once it is connected, except those
// of which the comment says so.
type conn struct {
	c      *Client
	ws     *websocket.Conn
	ctx    context.Context         // ends with the connection
	cancel context.CancelCauseFunc // the cause is why the connection ends
	// reading is the context of reads. Its end, by abort, ends the WebSocket at once.
	reading context.Context
	abort   context.CancelFunc
	cipher  *seal.Cipher // nil: not encrypted
	state   State        // Connected
	limit   int          // bytes of a message to the server; 0: not known

	interval, timeout time.Duration // of heartbeats

	received atomic.Uint64 // how often something has arrived
	sent     atomic.Uint64 // how many messages were sent
	paused   atomic.Bool   // the reader waits for callbacks
	beat     atomic.Bool   // a heartbeat is to be sent

	refreshing atomic.Bool // refresh has a goroutine
}

// serverMessage is a message from the server.
type serverMessage struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	ID     json.RawMessage `json:"id"`
	Hearth json.RawMessage `json:"hearth"`
	Room   string          `json:"room"`
	Offset uint64          `json:"offset"`
	Epoch  string          `json:"epoch"`
}

// id returns the id if it is a string; empty otherwise.
func (m *serverMessage) id() string {
	var id string
	if m.ID == nil || json.Unmarshal(m.ID, &id) != nil {
		return ""
	}
	return id
}

// error returns the data of an error event.
func (m *serverMessage) error() *Error {
	var e struct{ Code, Message string }
	if err := json.Unmarshal(orNull(m.Data), &e); err != nil {
		return &Error{Message: string(m.Data)}
	}
	return &Error{Code: e.Code, Message: e.Message}
}

// fail ends the connection because of err. It does not wait.
func (n *conn) fail(err error) { n.cancel(err) }

// serve exchanges messages until the connection ends, and returns why. It waits for all goroutines
// of the connection.
func (n *conn) serve() error {
	c := n.c
	var running sync.WaitGroup
	reads := make(chan struct{})
	running.Go(func() { // ends with n.ws
		close(reads)
		n.fail(n.read())
	})
	<-reads             // a WebSocket that is not read from waits for a close frame longer than abortSoon allows
	running.Go(n.write) // ends with n.ctx
	n.watch()
	cause := context.Cause(n.ctx)
	if c.ctx.Err() != nil {
		n.abortSoon()
		_ = n.ws.Close(websocket.StatusNormalClosure, "") // an error means that it has ended
	} else {
		_ = n.ws.CloseNow() // the same
	}
	n.abort()
	running.Wait()
	return cause
}

// abortSoon ends the WebSocket after a second, for the other side's close frame to arrive.
func (n *conn) abortSoon() {
	timer := time.AfterFunc(time.Second, n.abort)
	context.AfterFunc(n.reading, func() { timer.Stop() })
}

// read reads messages until the connection ends, and returns why.
func (n *conn) read() error {
	for {
		text, err := n.next(n.reading)
		if err != nil {
			return closeError(err)
		}
		m, err := n.parse(text)
		if err != nil {
			return err
		}
		if m == nil {
			continue
		}
		n.c.receive(n, m, len(text))
		if n.c.calls.full() {
			n.paused.Store(true)
			n.c.calls.wait()
			n.paused.Store(false)
		}
	}
}

// next reads one message. A part of it counts as a sign of life.
func (n *conn) next(ctx context.Context) ([]byte, error) {
	_, r, err := n.ws.Reader(ctx)
	if err != nil {
		return nil, err
	}
	n.received.Add(1)
	return io.ReadAll(readerFunc(func(p []byte) (int, error) {
		k, err := r.Read(p)
		n.received.Add(1)
		return k, err
	}))
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// parse parses a message, and decrypts it. The message is nil if it must be ignored.
func (n *conn) parse(text []byte) (*serverMessage, error) {
	var m serverMessage
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("read a message: %w", err)
	}
	if n.cipher != nil && m.Event != protocol.EventHeartbeat {
		if m.Event != protocol.EventEncrypted {
			return nil, errPlaintext
		}
		plain, err := n.cipher.OpenData(nil, m.Data)
		if err != nil {
			return nil, fmt.Errorf("decrypt a message: %w", err)
		}
		m = serverMessage{}
		if err := json.Unmarshal(plain, &m); err != nil {
			return nil, fmt.Errorf("read an encrypted message: %w", err)
		}
	}
	if m.Event == protocol.EventHeartbeat || m.Event == "" {
		return nil, nil
	}
	return &m, nil
}

var (
	errPlaintext = errors.New("the server has sent an unencrypted message")
	errDead      = errors.New("the server does not answer")
)

// closeError returns the CloseError for an error of the WebSocket.
func closeError(err error) error {
	if e, ok := errors.AsType[websocket.CloseError](err); ok {
		return &CloseError{Code: int(e.Code), Reason: e.Reason}
	}
	return fmt.Errorf("%w: %w", &CloseError{Code: codeAbnormal}, err)
}

const codeAbnormal = 1006

// write sends the messages of the queue until the connection ends.
func (n *conn) write() {
	out := n.c.out
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-out.wake:
		}
		for n.ctx.Err() == nil {
			if n.beat.Swap(false) {
				n.send([]byte(`{"event":"heartbeat"}`), true)
			}
			it, ok := out.take()
			if !ok {
				break
			}
			n.sendItem(it)
		}
	}
}

// sendItem sends a message of the queue.
func (n *conn) sendItem(it item) {
	switch {
	case n.limit > 0 && n.size(it.text) > n.limit:
		n.c.log.Warn("a message was not sent: it is larger than the server accepts", "bytes", len(it.text), "limit", n.limit)
		if it.req != nil {
			it.req.end(answer{err: ErrTooLarge})
		} else {
			n.c.out.dropped.Add(1)
		}
	case it.req != nil && !n.c.expect(it.req):
	default:
		n.send(it.text, false)
	}
}

// size returns the size of a message as it is sent.
func (n *conn) size(text []byte) int {
	if n.cipher != nil {
		return seal.EnvelopeSize(len(text))
	}
	return len(text)
}

// send writes a message. If it fails, the connection ends: the reader says why, because a close
// frame may have arrived. A write that blocks ends with the connection.
func (n *conn) send(text []byte, plain bool) {
	if n.cipher != nil && !plain {
		var err error
		if text, err = n.cipher.AppendEnvelope(nil, text); err != nil {
			n.fail(fmt.Errorf("encrypt a message: %w", err))
			return
		}
	}
	if err := n.ws.Write(n.reading, websocket.MessageText, text); err != nil {
		n.abortSoon()
		return
	}
	n.sent.Add(1)
}

// ticks is how often the time for a heartbeat, or for its answer, is divided.
const ticks = 4

// failedEvery is how often a client asks again for a room for which the server could not decide.
const failedEvery = 10 * time.Second

// watch sends heartbeats, and ends the connection if nothing arrives. It counts ticks instead of
// reading a clock: while the process is stopped there are none, so a server is not taken for dead
// because its messages were not read. It returns when the connection ends.
func (n *conn) watch() {
	period := max(min(n.interval, n.timeout)/ticks, time.Millisecond)
	tick := time.NewTicker(period)
	defer tick.Stop()
	// A sign of life is noticed up to a tick late, so a heartbeat is sent a tick early.
	idle, patience := max(1, int(n.interval/period)-1), int((n.timeout+period-1)/period)
	retry := int(failedEvery/period) + 1
	var quietIn, quietOut, waiting, count int
	received, sent := n.received.Load(), n.sent.Load()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		quietIn, quietOut = quietIn+1, quietOut+1
		if now := n.received.Load(); now != received || n.paused.Load() {
			received, quietIn, waiting = now, 0, 0
		}
		if now := n.sent.Load(); now != sent {
			sent, quietOut = now, 0
		}
		switch {
		case waiting >= patience:
			n.fail(fmt.Errorf("%w: %w", &CloseError{Code: codeAbnormal}, errDead))
			return
		case waiting > 0:
			waiting++
		case quietIn >= idle || quietOut >= idle:
			waiting, quietOut = 1, 0
			n.heartbeat()
		}
		if count++; count%retry == 0 {
			n.c.mu.Lock()
			if n.c.conn == n {
				n.c.failedLocked()
			}
			n.c.mu.Unlock()
		}
	}
}

// heartbeat makes the writer send a heartbeat. A server without the extension does not answer it,
// so a ping follows.
func (n *conn) heartbeat() {
	n.beat.Store(true)
	n.c.out.signal()
	if n.state.Extension {
		return
	}
	n.c.wg.Go(func() { // ends with the pong or the connection
		if n.ws.Ping(n.ctx) == nil {
			n.received.Add(1)
		}
	})
}

// expect makes the answer to r known, before r is sent. It returns false if r has ended.
func (c *Client) expect(r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.canceled {
		return false
	}
	c.pending[r.id] = r
	return true
}

// receive handles a message of the server, which had this size.
func (c *Client) receive(n *conn, m *serverMessage, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != n {
		return
	}
	if id := m.id(); id != "" && c.answeredLocked(id, m) {
		return
	}
	switch m.Event {
	case protocol.EventInterrupted:
		var data struct{ Rooms []string }
		if err := json.Unmarshal(orNull(m.Data), &data); err == nil {
			c.interruptedLocked(data.Rooms)
		}
	case protocol.EventExpiring:
		n.refresh()
	case protocol.EventAsk:
		c.questions.askedLocked(n, m.Data)
	case protocol.EventTicket:
		var data struct{ Ticket string }
		if err := json.Unmarshal(orNull(m.Data), &data); err == nil {
			c.ticket = data.Ticket
		}
	default:
		if protocol.System(m.Event) && m.Event != protocol.EventError {
			return // of a later version
		}
		p := position{Offset: m.Offset, Epoch: m.Epoch}
		if !c.receivedLocked(m.Room, p) {
			return
		}
		message := Message{Event: m.Event, Data: m.Data, Room: m.Room, Position: p}
		c.calls.add(call{f: func() { c.handle(message) }, size: size})
		c.recoveredLocked(m.Room)
	}
}

// answeredLocked handles an answer. It returns false if the client does not expect one with this
// id.
func (c *Client) answeredLocked(id string, m *serverMessage) bool {
	if r := c.pending[id]; r != nil {
		delete(c.pending, id)
		a := answer{data: m.Data}
		if m.Event == protocol.EventError {
			a = answer{err: m.error()}
		}
		r.end(a)
		return true
	}
	switch m.Event {
	case protocol.EventJoin:
		var a joinAnswer
		if err := json.Unmarshal(orNull(m.Data), &a); err != nil {
			c.log.Error("the answer to a join was ignored", "err", err)
			return true
		}
		c.joinedLocked(id, a)
		return true
	case protocol.EventLeave:
		return true
	case protocol.EventError:
		return c.joinFailedLocked(id, m.error())
	}
	return false
}

// connected makes n the connection: it joins the rooms and reports the state.
func (c *Client) connected(n *conn, resumed *joinAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Phase == Closed {
		return
	}
	c.conn = n
	var control [][]byte
	rooms := make([]*Room, 0, len(c.rooms))
	for _, r := range c.rooms {
		rooms = append(rooms, r)
	}
	slices.SortFunc(rooms, func(a, b *Room) int { return strings.Compare(a.name, b.name) })
	c.setLocked(n.state)
	if resumed != nil {
		rooms, control = c.resumedLocked(rooms, resumed)
	}
	clear(c.left)
	for _, r := range rooms {
		r.fresh = true
	}
	control = append(control, c.joinLocked(rooms)...)
	c.out.begin(control)
	if !n.state.Extension {
		for _, r := range rooms {
			r.joinedLocked(position{}, 0, "") // there will be no answer
		}
	}
}

// resumedLocked handles the rooms of a session that was resumed. It returns the rooms that are not
// among them, and messages to leave the others that the client has left.
func (c *Client) resumedLocked(rooms []*Room, resumed *joinAnswer) (missing []*Room, control [][]byte) {
	const id = "resumed"
	var leave []string
	for _, j := range resumed.Joined {
		if c.left[j.Room] {
			leave = append(leave, j.Room)
		}
		r := c.rooms[j.Room]
		if r == nil {
			continue
		}
		if !r.member && r.cfg.Last > 0 && (r.cfg.After == position{}) {
			leave = append(leave, j.Room) // the last messages are only for rooms that it is not in
			continue
		}
		r.joinID = id
	}
	c.joinedLocked(id, *resumed)
	for some := range slices.Chunk(leave, maxJoin) {
		control = append(control, c.leaveLocked(some))
	}
	for _, r := range rooms {
		if c.rooms[r.name] == r && r.status.State == RoomJoining {
			missing = append(missing, r)
		}
	}
	return missing, control
}
