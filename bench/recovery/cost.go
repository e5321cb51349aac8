package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hearthws/hearth/bench/internal/process"
	"github.com/hearthws/hearth/bench/internal/redis"
)

const (
	costBatch   = 1000 // messages that are published before the first of them is confirmed
	costMissed  = 100  // messages of one recovery
	costRoom    = "kept:cost"
	costWarming = 20 // one of so many operations in addition, before those that count
)

// cost measures the processor time of publishing to a room with history, and of recovering 100
// messages from it, with the history in the memory of the server and in Redis.
func cost(ctx context.Context, l *lab, e entrant, size load) (result, error) {
	r := result{Kind: "result", Clients: 1}
	for _, kept := range []string{"memory", "Redis"} {
		var o nodeOptions
		processes := map[string]*process.Process{}
		if kept == "Redis" {
			server, err := redis.Start(ctx, nil)
			if err != nil {
				return r, fmt.Errorf("start redis: %w", err)
			}
			l.stops = append(l.stops, server.Stop)
			o.redis, processes["Redis"] = server.URL(), server.Process
		}
		n, err := e.start(ctx, l, o)
		if err != nil {
			return r, err
		}
		processes["server"] = n.process
		if err := costOf(ctx, &r, e, n, kept, processes, size); err != nil {
			return r, fmt.Errorf("history in %s: %w", kept, err)
		}
	}
	return r, nil
}

// costOf measures one server.
func costOf(ctx context.Context, r *result, e entrant, n *node, kept string, processes map[string]*process.Process, size load) error {
	batches := size.operations / costBatch
	p, err := e.publish(ctx, nil, n)
	if err != nil {
		return err
	}
	defer p.close()
	many, ok := p.(batchPublisher)
	if !ok {
		return errors.New("its publisher has no batches")
	}
	publish := func() error { return many.publishBatch(ctx, costRoom, costBatch) }
	if err := measureCPU(r, "publish, history in "+kept, processes, batches, costBatch, publish); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	published := (batches + max(1, batches/costWarming)) * costBatch
	other, err := newRecovering(ctx, e, n, published) // stays in the room, so the server keeps it
	if err != nil {
		return err
	}
	defer other.socket.reset()
	one, err := newRecovering(ctx, e, n, published)
	if err != nil {
		return err
	}
	defer one.socket.reset()
	if err := measureCPU(r, "recover 100 messages, history in "+kept, processes, size.operations/40, 1, one.again); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}

// measureCPU repeats a step, and adds the time per operation to the result.
func measureCPU(r *result, name string, processes map[string]*process.Process, steps, operations int, step func() error) error {
	before := map[string]time.Duration{}
	warming := max(1, steps/costWarming)
	for i := range warming + steps {
		if i == warming {
			for of, p := range processes {
				used, err := cpu(p)
				if err != nil {
					return err
				}
				before[of] = used
			}
		}
		if err := step(); err != nil {
			return err
		}
	}
	for _, of := range []string{"server", "Redis"} {
		if p := processes[of]; p != nil {
			used, err := cpu(p)
			if err != nil {
				return err
			}
			r.add(name+", CPU of "+of, float64((used-before[of]).Microseconds())/float64(steps*operations), "µs")
		}
	}
	return nil
}

// A batchPublisher publishes many messages at once.
type batchPublisher interface {
	// publishBatch publishes n messages, and returns when the server has all of them.
	publishBatch(ctx context.Context, room string, n int) error
}

// publishBatch sends all messages and then waits for the confirmations.
func (c *controller) publishBatch(ctx context.Context, room string, n int) error {
	written := make(chan error, 1)
	go func() { // ends with its messages, or when the socket is closed; the result is received below
		for number := range n {
			text, err := roomCommand(room, number+1)
			if err == nil {
				err = c.socket.send(text)
			}
			if err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	var err error
	for range n {
		if err = c.await("sent"); err != nil {
			c.socket.reset()
			break
		}
	}
	return errors.Join(err, <-written)
}

// publishBatch uses the method batch of the API.
func (p *httpPublisher) publishBatch(ctx context.Context, room string, n int) error {
	type command struct {
		Publish centrifugoPublish `json:"publish"`
	}
	commands := make([]command, n)
	for i := range commands {
		commands[i].Publish = centrifugoPublish{room, roomMessage{room, i + 1}}
	}
	return p.post(ctx, "batch", map[string][]command{"commands": commands})
}

// A recovering is a client that leaves a room and joins it from a position 100 messages ago.
type recovering struct {
	socket     *socket
	centrifugo bool
	from       position
	connected  bool
	ids        int // of the last command of Centrifugo
}

// newRecovering connects a client to a server whose room is at an offset. Its connection is closed
// when ctx is done.
func newRecovering(ctx context.Context, e entrant, n *node, offset int) (*recovering, error) {
	socket, err := dial(ctx, n.addr, e.dialect.path)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, socket.reset)
	r := &recovering{socket: socket, centrifugo: e.dialect.path == centrifugoDialect.path}
	return r, r.begin(ctx, offset)
}

// begin connects, and waits until the room is at an offset: a server may confirm messages before
// they are in Redis.
func (r *recovering) begin(ctx context.Context, offset int) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for {
		at, _, err := r.join(nil)
		if err != nil || int(at.Offset) == offset {
			r.from = position{at.Offset - costMissed, at.Epoch}
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("the room is at %d of %d: %w", at.Offset, offset, err)
		}
	}
}

// again leaves the room and recovers once.
func (r *recovering) again() error {
	_, n, err := r.join(&r.from)
	if err == nil && n != costMissed {
		err = fmt.Errorf("recovered %d messages of %d", n, costMissed)
	}
	return err
}

func (r *recovering) sendJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.socket.send(text)
}

// receive reads one message.
func (r *recovering) receive(v any) error {
	if err := r.socket.setDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	payload, err := r.socket.receive(func() {})
	if err != nil {
		return err
	}
	return json.Unmarshal(payload, v)
}

// join leaves the room, and joins it from a position if there is one. The first time it connects
// instead of leaving the room. It returns the position of the room, and the number of recovered
// messages.
func (r *recovering) join(from *position) (at position, n int, err error) {
	connected := r.connected
	r.connected = true
	if r.centrifugo {
		return r.subscribe(connected, from)
	}
	return r.joinHearth(connected, from)
}

// joinHearth speaks the protocol of Hearth.
func (r *recovering) joinHearth(connected bool, from *position) (at position, n int, err error) {
	first, answer := `{"event":"leave","data":{"rooms":["`+costRoom+`"]}}`, "leave"
	join := `{"event":"join","data":{"rooms":["` + costRoom + `"]}}`
	if !connected {
		first, answer = `{"event":"authenticate","data":{},"hearth":{"version":1,"features":["recovery"]}}`, "connected"
	}
	if from != nil {
		join = fmt.Sprintf(`{"event":"join","data":{"rooms":[%q],"positions":{%q:{"offset":%d,"epoch":%q}}}}`, costRoom, costRoom, from.Offset, from.Epoch)
	}
	if err := r.socket.send([]byte(first)); err != nil {
		return at, 0, err
	}
	for wanted := -1; n < wanted || wanted < 0; {
		var m hearthMessage
		if err := r.receive(&m); err != nil {
			return at, n, err
		}
		switch m.Event {
		case answer:
			if err := r.socket.send([]byte(join)); err != nil {
				return at, n, err
			}
		case "m":
			n++
		case "join":
			var a joinAnswer
			if err := json.Unmarshal(m.Data, &a); err != nil || len(a.Joined) != 1 {
				return at, n, fmt.Errorf("answer %s: %w", m.Data, err)
			}
			at, wanted, n = a.Joined[0].position, a.Joined[0].Recovered, 0
		}
	}
	return at, n, nil
}

// subscribe speaks the protocol of Centrifugo.
func (r *recovering) subscribe(connected bool, from *position) (at position, n int, err error) {
	r.ids += 2
	first := centrifugoCommand{ID: r.ids, Leave: &subscribeCommand{Channel: costRoom}}
	second := centrifugoCommand{ID: r.ids + 1, Subscribe: &subscribeCommand{Channel: costRoom}}
	if !connected {
		first.Leave, first.Connect = nil, &struct{}{}
	}
	if from != nil {
		second.Subscribe.Recover, second.Subscribe.Offset, second.Subscribe.Epoch = true, from.Offset, from.Epoch
	}
	for _, c := range []centrifugoCommand{first, second} {
		if err := r.sendJSON(c); err != nil {
			return at, 0, err
		}
		for answered := false; !answered; {
			var a centrifugoReply
			if err := r.receive(&a); err != nil {
				return at, 0, err
			}
			switch {
			case a.Error != nil:
				return at, 0, fmt.Errorf("error of the server: %s", a.Error.Message)
			case a.Subscribe != nil:
				at, n = position{a.Subscribe.Offset, a.Subscribe.Epoch}, len(a.Subscribe.Publications)
				answered = true
			case a.ID == c.ID:
				answered = true
			case a.ID == 0:
				if err := r.socket.send([]byte("{}")); err != nil { // the answer to a ping
					return at, 0, err
				}
			}
		}
	}
	return at, n, nil
}
