package hearthtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/protocol"
)

// maxUnread is how many messages a client keeps that the test has not taken.
const maxUnread = 1 << 16

// Client is a client of a test. Server.Connect returns one that is authenticated, Server.Dial one
// that is not. If a call cannot do what it promises, it fails the test with t.Fatal. So the calls
// belong on the goroutine of the test. The connection is closed when the test ends.
//
// An authenticated client sends a heartbeat when the server expects one; see Silence.
type Client struct {
	t        testing.TB
	conn     *websocket.Conn
	patience time.Duration
	id, user string         // set by authenticate
	answered bool           // the server has granted the extension; set by authenticate
	ignored  []string       // events that Expect passes over
	requests int            // how many ids were used
	ready    chan struct{}  // of capacity 1: something was added to inbox
	running  sync.WaitGroup // the goroutines that read and send heartbeats
	silent   chan struct{}  // closed to end the heartbeats
	silence  sync.Once      // closes silent

	mu    sync.Mutex
	inbox []received // guarded by mu
}

// received is a message, or the end of the connection.
type received struct {
	message message
	text    string
	close   *websocket.CloseError // the server closed the connection
	err     error                 // the connection ended in another way
}

type message struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data,omitempty"`
	ID     json.RawMessage `json:"id,omitempty"`
	Hearth json.RawMessage `json:"hearth,omitempty"`
}

func (r received) String() string {
	switch {
	case r.close != nil:
		return fmt.Sprintf("close %d %q", r.close.Code, r.close.Reason)
	case r.err != nil:
		return fmt.Sprintf("the end of the connection (%v)", r.err)
	}
	const most = 1000
	if len(r.text) > most {
		return r.text[:most] + "…"
	}
	return r.text
}

func (r received) ended() bool { return r.close != nil || r.err != nil }

func dial(t testing.TB, h *http.Client, patience time.Duration) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://hearthtest/ws", &websocket.DialOptions{HTTPClient: h})
	if err != nil {
		t.Fatalf("hearthtest: connect: %v", err)
	}
	conn.SetReadLimit(-1)
	c := &Client{t: t, conn: conn, patience: patience, ready: make(chan struct{}, 1), silent: make(chan struct{})}
	c.running.Go(c.read) // ends with the connection
	t.Cleanup(c.Cut)
	return c
}

// ID returns the client's id on the server; empty if it has not authenticated by Connect.
func (c *Client) ID() string { return c.id }

// UserID returns the user id that the application has given the client.
func (c *Client) UserID() string { return c.user }

// Send sends a message. The data is encoded as JSON; hearth.NoData{} sends none. It does not wait
// until the server has handled the message: Sync does.
func (c *Client) Send(event string, data any) {
	c.t.Helper()
	c.write(event, data, nil, nil)
}

// SendText sends a text message as it is, for tests of invalid messages.
func (c *Client) SendText(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatalf("hearthtest: send %.200s: %v", text, err)
	}
}

// Request sends a message with an id, waits for the answer, and decodes its data into reply, unless
// reply is nil. Other messages that arrive meanwhile stay for Expect. If the answer is an error,
// Request returns it as a *hearth.ClientError. The client must be authenticated.
func (c *Client) Request(event string, data, reply any) error {
	c.t.Helper()
	c.requests++
	id := json.RawMessage(strconv.Quote("hearthtest-" + strconv.Itoa(c.requests)))
	c.write(event, data, id, nil)
	r := c.take("the answer to "+event, func(r received) bool { return r.ended() || string(r.message.ID) == string(id) })
	switch {
	case r.ended():
		c.t.Fatalf("hearthtest: got %v, want the answer to %s", r, event)
	case r.message.Event == protocol.EventError:
		e := &hearth.ClientError{}
		c.decode(r, e)
		return e
	}
	c.decode(r, reply)
	return nil
}

// Join joins rooms, and fails the test if one of them is rejected.
func (c *Client) Join(rooms ...string) {
	c.t.Helper()
	var answer struct{ Rejected []protocol.Rejected }
	if err := c.Request(protocol.EventJoin, map[string]any{"rooms": rooms}, &answer); err != nil {
		c.t.Fatalf("hearthtest: join %v: %v", rooms, err)
	}
	if len(answer.Rejected) > 0 {
		c.t.Fatalf("hearthtest: join %v: rejected %+v", rooms, answer.Rejected)
	}
}

// Leave leaves rooms. It returns when the client is not a member anymore.
func (c *Client) Leave(rooms ...string) {
	c.t.Helper()
	if err := c.Request(protocol.EventLeave, map[string]any{"rooms": rooms}, nil); err != nil {
		c.t.Fatalf("hearthtest: leave %v: %v", rooms, err)
	}
}

// Sync waits until the server has handled the earlier messages of this client, and until everything
// that the server sent to this client meanwhile has arrived. A message to a room with history, and
// one of another server, may still arrive later. The client must be authenticated by Connect.
func (c *Client) Sync() {
	c.t.Helper()
	if !c.answered {
		c.t.Fatal("hearthtest: Sync and ExpectNothing need a client of Connect")
	}
	if err := c.Request(protocol.EventJoin, map[string]any{"rooms": []string{}}, nil); err != nil {
		c.t.Fatalf("hearthtest: synchronize: %v", err)
	}
}

// Ignore makes Expect, ExpectClose and ExpectNothing pass over messages of these events, such as
// notifications that are not the subject of the test.
func (c *Client) Ignore(events ...string) { c.ignored = append(c.ignored, events...) }

// Expect takes the next message, which must be of this event, and decodes its data into data,
// unless data is nil. It fails the test if another message or the end of the connection is next, or
// if nothing arrives within Server.Patience. An error of the protocol or of the application is the
// event "error", whose data decodes into a hearth.ClientError.
func (c *Client) Expect(event string, data any) {
	c.t.Helper()
	r := c.take(event, next)
	if r.message.Event != event {
		c.t.Fatalf("hearthtest: got %v, want the event %s%s", r, event, c.rest())
	}
	c.decode(r, data)
}

// ExpectAsk takes the next message, which must be a question of hearth.Ask with this event, and
// decodes its data into data, unless data is nil. The returned function sends the answer, encoded as
// JSON; a *hearth.AnswerError is an error.
func (c *Client) ExpectAsk(event string, data any) (reply func(answer any)) {
	c.t.Helper()
	r := c.take("the question "+event, next)
	var question struct {
		Ask   int64
		Event string
		Data  json.RawMessage
	}
	if r.message.Event == protocol.EventAsk {
		c.decode(r, &question)
	}
	if question.Event != event || r.message.Event != protocol.EventAsk {
		c.t.Fatalf("hearthtest: got %v, want the question %s%s", r, event, c.rest())
	}
	r.message.Data = question.Data
	c.decode(r, data)
	return func(answer any) {
		c.t.Helper()
		if e, ok := answer.(*hearth.AnswerError); ok {
			c.Send(protocol.EventAnswer, map[string]any{"ask": question.Ask, "error": map[string]string{"code": e.Code, "message": e.Message}})
			return
		}
		c.Send(protocol.EventAnswer, map[string]any{"ask": question.Ask, "data": answer})
	}
}

// ExpectClose takes the end of the connection, which must be a close frame of the server with this
// code. It returns the reason. It fails the test if a message is next.
func (c *Client) ExpectClose(code int) (reason string) {
	c.t.Helper()
	r := c.take("close "+strconv.Itoa(code), next)
	if r.close == nil || int(r.close.Code) != code {
		c.t.Fatalf("hearthtest: got %v, want close %d%s", r, code, c.rest())
	}
	return r.close.Reason
}

// ExpectNothing fails the test if a message has arrived that the test has not taken, or if the
// server has sent one that is on its way; see Sync.
func (c *Client) ExpectNothing() {
	c.t.Helper()
	c.Sync()
	c.mu.Lock()
	c.dropIgnoredLocked()
	arrived := len(c.inbox) > 0
	c.mu.Unlock()
	if arrived {
		c.t.Fatalf("hearthtest: got messages, want nothing%s", c.rest())
	}
}

// Silence ends the heartbeats of the client, so that a test can see the server close it with 4002.
func (c *Client) Silence() { c.silence.Do(func() { close(c.silent) }) }

// Close closes the connection with code 1000, and waits until the server has closed it too.
func (c *Client) Close() {
	c.t.Helper()
	c.Silence()
	if err := c.conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		c.t.Fatalf("hearthtest: close: %v", err)
	}
	c.running.Wait()
}

// Cut ends the connection without a close frame, as if the network had failed.
func (c *Client) Cut() {
	c.Silence()
	_ = c.conn.CloseNow() // an error means that the connection has ended
	c.running.Wait()
}

// authenticate authenticates the client, requests the extension, and starts the heartbeats.
func (c *Client) authenticate(credentials any) {
	c.t.Helper()
	if credentials == nil {
		credentials = hearth.NoData{}
	}
	c.write(protocol.EventAuthenticate, credentials, nil, json.RawMessage(`{"version":1,"features":["ask"]}`))
	r := c.take(protocol.EventConnected, next)
	if r.message.Event != protocol.EventConnected {
		c.t.Fatalf("hearthtest: got %v, want %s%s", r, protocol.EventConnected, c.rest())
	}
	var data struct{ ID, UserID string }
	c.decode(r, &data)
	var granted struct{ Heartbeat struct{ Interval int } }
	if err := json.Unmarshal(r.message.Hearth, &granted); err != nil || granted.Heartbeat.Interval < 1 {
		c.t.Fatalf("hearthtest: got %v, want the extension of the protocol", r)
	}
	c.id, c.user, c.answered = data.ID, data.UserID, true
	c.running.Go(func() { // ends with Silence, or with the connection
		c.sendHeartbeats(time.Duration(granted.Heartbeat.Interval) * time.Millisecond)
	})
}

func (c *Client) sendHeartbeats(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if c.conn.Write(context.Background(), websocket.MessageText, []byte(`{"event":"heartbeat"}`)) != nil {
				return
			}
		case <-c.silent:
			return
		}
	}
}

func (c *Client) write(event string, data any, id, extension json.RawMessage) {
	c.t.Helper()
	raw, err := protocol.EncodeData(data)
	if err != nil {
		c.t.Fatalf("hearthtest: send %s: %v", event, err)
	}
	text, err := json.Marshal(message{Event: event, Data: raw, ID: id, Hearth: extension})
	if err != nil {
		c.t.Fatalf("hearthtest: send %s: %v", event, err)
	}
	c.SendText(string(text))
}

// read reads until the connection ends.
func (c *Client) read() {
	for {
		_, text, err := c.conn.Read(context.Background())
		r := received{text: string(text)}
		if err != nil {
			r.err = err
			if e, ok := errors.AsType[websocket.CloseError](err); ok {
				r.close = &e
			}
		} else if err := json.Unmarshal(text, &r.message); err != nil {
			r.err = fmt.Errorf("the server sent %.200q: %w", text, err)
		}
		if r.err == nil && r.message.Event == protocol.EventHeartbeat {
			continue // the answer to a heartbeat
		}
		if !c.put(r) {
			return
		}
	}
}

// put adds r to the inbox. It returns false if r is the last element.
func (c *Client) put(r received) bool {
	c.mu.Lock()
	full := len(c.inbox) >= maxUnread
	if full {
		r = received{err: fmt.Errorf("the test has not taken %d messages", maxUnread)}
	}
	c.inbox = append(c.inbox, r)
	c.mu.Unlock()
	select {
	case c.ready <- struct{}{}:
	default:
	}
	return !full && r.err == nil
}

// next fits whatever is next.
func next(received) bool { return true }

// dropIgnoredLocked removes the ignored messages that have arrived.
func (c *Client) dropIgnoredLocked() {
	c.inbox = slices.DeleteFunc(c.inbox, func(r received) bool {
		return !r.ended() && slices.Contains(c.ignored, r.message.Event)
	})
}

// take waits for the first element of the inbox that fits and removes it, except the end of the
// connection, which stays.
func (c *Client) take(want string, fits func(received) bool) received {
	c.t.Helper()
	timeout := time.NewTimer(c.patience)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		c.dropIgnoredLocked()
		if at := slices.IndexFunc(c.inbox, fits); at >= 0 {
			r := c.inbox[at]
			if !r.ended() {
				c.inbox = slices.Delete(c.inbox, at, at+1)
			}
			c.mu.Unlock()
			return r
		}
		c.mu.Unlock()
		select {
		case <-c.ready:
		case <-timeout.C:
			c.t.Fatalf("hearthtest: nothing arrived within %v, want %s%s", c.patience, want, c.rest())
		}
	}
}

// rest describes the messages that the test has not taken, for failures.
func (c *Client) rest() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.inbox) == 0 {
		return ""
	}
	const most = 10
	var b strings.Builder
	b.WriteString("\nnot taken:")
	for i, r := range c.inbox {
		if i == most {
			fmt.Fprintf(&b, "\n  … and %d more", len(c.inbox)-most)
			break
		}
		b.WriteString("\n  " + r.String())
	}
	return b.String()
}

func (c *Client) decode(r received, v any) {
	c.t.Helper()
	if v == nil {
		return
	}
	data := r.message.Data
	if data == nil {
		data = json.RawMessage("null")
	}
	if err := json.Unmarshal(data, v); err != nil {
		c.t.Fatalf("hearthtest: decode the data of %v: %v", r, err)
	}
}
