package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/emitter"
	"github.com/hearthws/hearth/protocol"
)

// Target is the part of a request that selects clients.
type Target struct {
	Client string `json:"client,omitempty" query:"client" doc:"id of one client"`
	User   string `json:"user,omitempty" query:"user" doc:"id of a user: all clients of the user"`
	Room   string `json:"room,omitempty" query:"room" doc:"name of a room: its members"`
	All    bool   `json:"all,omitempty" query:"all" doc:"true: all authenticated clients"`
}

func (t Target) target() (hearth.Target, error) {
	var found []hearth.Target
	if t.Client != "" {
		found = append(found, hearth.ToClient(t.Client))
	}
	if t.User != "" {
		found = append(found, hearth.ToUser(t.User))
	}
	if t.Room != "" {
		found = append(found, hearth.ToRoom(t.Room))
	}
	if t.All {
		found = append(found, hearth.ToAll())
	}
	if len(found) != 1 {
		return hearth.Target{}, errTarget
	}
	return found[0], found[0].Check()
}

// Message is a message to clients.
type Message struct {
	Target
	Event  string          `json:"event" doc:"name of the event" minLength:"1"`
	Data   json.RawMessage `json:"data,omitempty" doc:"any JSON value; clients receive it unchanged"`
	Except []string        `json:"except,omitempty" nullable:"false" doc:"ids of clients that do not receive it; only for a room and for all"`
	Key    string          `json:"key,omitempty" doc:"makes repetitions harmless: a message with the same key is sent once within two minutes. For a room with history this holds for all servers, otherwise for requests to this server" maxLength:"256"`
}

// Sent is the result of a message that was sent.
type Sent struct {
	Sent      bool   `json:"sent" doc:"true: the message was accepted by Redis, or without Redis is queued for the clients"`
	Confirmed string `json:"confirmed" enum:"broker,server" doc:"what has accepted it: broker (Redis), or server (the only server, which has queued it)"`
	Servers   int    `json:"servers" doc:"servers that this one knows, itself included: they deliver the message to their clients"`
	Repeated  bool   `json:"repeated,omitempty" doc:"true: a message with this key was sent before, and this one was not sent again. Not reported for rooms with history"`
}

// Batch is a list of messages.
type Batch struct {
	Messages []Message `json:"messages" nullable:"false" minItems:"1" maxItems:"1000" doc:"sent in this order"`
}

// Results are those of a batch.
type Results struct {
	Sent    int      `json:"sent" doc:"number of messages that were sent, repeated ones included"`
	Failed  int      `json:"failed" doc:"number of messages that were not sent, as far as known"`
	Servers int      `json:"servers" doc:"servers that this one knows, itself included"`
	Errors  []Failed `json:"errors" nullable:"false" doc:"one for each message that was not sent"`
}

// Failed is the error of one message.
type Failed struct {
	Index  int    `json:"index" doc:"its place in the list, from 0"`
	Status int    `json:"status" doc:"the HTTP status that it would have had alone"`
	Detail string `json:"detail" doc:"what is wrong"`
}

func (a *api) registerSends() {
	register(a, Publish, http.MethodPost, "/v1/publish", "publish", "Send one event",
		"Sends an event to the clients of the target on all servers. A target without clients is not an error.", a.publish)
	register(a, Publish, http.MethodPost, "/v1/batch", "batch", "Send several events",
		"Sends events in order. An event that fails does not stop the others: the status is 200, and errors has the failures.", a.batch)
}

func (a *api) publish(ctx context.Context, in *struct{ Body Message }) (*struct{ Body Sent }, error) {
	results := a.send(ctx, []Message{in.Body})
	if err := results[0].err; err != nil {
		return nil, err
	}
	confirmed := "server"
	if a.Broker != "" {
		confirmed = "broker"
	}
	return &struct{ Body Sent }{Sent{Sent: true, Confirmed: confirmed, Servers: len(a.Server.Nodes()), Repeated: results[0].repeated}}, nil
}

func (a *api) batch(ctx context.Context, in *struct{ Body Batch }) (*struct{ Body Results }, error) {
	r := Results{Servers: len(a.Server.Nodes()), Errors: []Failed{}}
	for i, result := range a.send(ctx, in.Body.Messages) {
		if result.err == nil {
			r.Sent++
			continue
		}
		r.Failed++
		status, detail := a.classify(result.err)
		r.Errors = append(r.Errors, Failed{Index: i, Status: status, Detail: detail})
	}
	return &struct{ Body Results }{r}, nil
}

// A result is what became of one message.
type result struct {
	err      error
	repeated bool
}

// An outgoing is a message that is being sent.
type outgoing struct {
	index  int // among the messages of the request
	target hearth.Target
	key    string // of the window; empty if the message has none
	once   string // the key for the broker; empty if the message has none
	event  string
	data   any
}

// send sends messages in order, and returns one result for each.
func (a *api) send(ctx context.Context, messages []Message) []result {
	results := make([]result, len(messages))
	var out []outgoing
	for i := range messages {
		o, repeated, err := a.prepare(ctx, &messages[i])
		results[i] = result{err, repeated}
		if err == nil && !repeated {
			o.index = i
			out = append(out, o)
		}
	}
	errs := a.sendAll(ctx, out)
	for i, o := range out {
		results[o.index].err = errs[i]
		if o.key != "" {
			a.keys.end(o.key, errs[i] == nil)
		}
	}
	return results
}

// prepare checks a message, and registers its key.
func (a *api) prepare(ctx context.Context, m *Message) (o outgoing, repeated bool, err error) {
	if o.target, err = m.Target.target(); err != nil {
		return o, false, err
	}
	o.target, o.event, o.data = o.target.Except(m.Except...), m.Event, hearth.NoData{}
	if m.Data != nil {
		o.data = m.Data
	}
	if err := o.target.Check(); err != nil {
		return o, false, err
	}
	if err := protocol.CheckEvent(m.Event); err != nil {
		return o, false, err
	}
	if m.Key == "" {
		return o, false, nil
	}
	if o.target.Type() == protocol.TypeRoom && a.HasHistory(o.target.Name()) {
		o.once = m.Key
		return o, false, nil
	}
	name, _ := ctx.Value(keyName{}).(string)
	o.key = name + " " + m.Key // names have no spaces
	b, err := json.Marshal([]any{m.Target, m.Event, m.Data, m.Except})
	if err != nil {
		return o, false, fmt.Errorf("%w: %w", protocol.ErrSyntax, err)
	}
	repeated, err = a.keys.begin(o.key, sha256.Sum256(b))
	return o, repeated, err
}

// sendAll sends messages in order, and returns one error for each.
func (a *api) sendAll(ctx context.Context, out []outgoing) []error {
	errs := make([]error, len(out))
	if a.Broker == "" {
		for i, o := range out {
			if o.once != "" {
				errs[i] = a.Emitter.SendOnce(ctx, o.target, o.event, o.data, o.once)
			} else {
				errs[i] = a.Server.Send(ctx, o.target, o.event, o.data)
			}
		}
		return errs
	}
	batch := a.Emitter.Batch()
	for _, o := range out {
		add(batch, o)
	}
	if failed := batch.Send(ctx); failed != nil {
		return failed
	}
	return errs
}

func add(b *emitter.Batch, o outgoing) {
	if o.once != "" {
		b.AddOnce(o.target, o.event, o.data, o.once)
	} else {
		b.Add(o.target, o.event, o.data)
	}
}
