package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

const (
	// resyncTimeout is how long a resync of all clients may wait for the event loops. It takes
	// milliseconds unless the send queues are full.
	resyncTimeout = 30 * time.Second

	// maxSharedBytes is how many bytes of resync messages are kept for other clients with the same
	// rooms.
	maxSharedBytes = 8 << 20
)

// resyncer sends resync messages to the clients that a loss may affect.
type resyncer struct {
	env    *session.Env
	tracks func(room string) bool // missing messages of the room are recovered
}

// resync sends each client the list of its rooms in which messages may be missing (protocol §9),
// and returns the number of clients for which the send queue had no space in time. Clients with the
// same list share one message: a hundred thousand clients in the same few rooms need one.
func (r *resyncer) resync(l broker.Loss) (failed int) {
	ctx, cancel := context.WithTimeout(r.env.Base, resyncTimeout)
	defer cancel()
	a := affectedBy(l.Channels)
	a.tracks = r.tracks
	shared := make(map[string]*ws.Message) // by payload
	kept := 0
	var payload []byte
	for _, m := range r.env.Hub.Members(nil, hub.Target{Kind: hub.All}) {
		s := session.Of(m)
		if s.ConnectedAt().After(l.Until) {
			continue // it connected after the loss
		}
		missing, ok := a.report(r.env.Hub, m)
		if !ok {
			continue
		}
		missing.Since, missing.Until = l.Since, l.Until
		payload = protocol.AppendResync(payload[:0], missing)
		msg := shared[string(payload)]
		if msg == nil {
			msg = ws.NewMessage(payload)
			if kept += 2 * len(payload); kept > maxSharedBytes {
				clear(shared)
				kept = 2 * len(payload)
			}
			shared[string(payload)] = msg
		}
		if err := r.send(ctx, s, msg); err == nil {
			r.env.Stats.Resyncs.Add(1)
		} else if !errors.Is(err, hub.ErrNotMember) {
			failed++
		}
	}
	if failed > 0 {
		r.env.Log.Warn("resync not sent to all clients: the send queue is full; retrying", "clients", failed)
	}
	return failed
}

// send queues a message for a client, and waits while the queue of the client's loop is full.
func (r *resyncer) send(ctx context.Context, s *session.Session, msg *ws.Message) error {
	for {
		err := s.Send(msg)
		if !errors.Is(err, hub.ErrQueueFull) {
			return err
		}
		limit := max(r.env.Limits.SendQueue/2, r.env.Limits.BackpressureLimit)
		if err := r.env.Hub.WaitPending(ctx, hub.Target{Kind: hub.Client, Name: s.ID()}, limit); err != nil {
			return err
		}
	}
}

// affected lists the targets that a loss may affect.
type affected struct {
	all       bool // every target
	broadcast bool
	names     [len(messageTypes)]map[string]bool // by hub.Kind
	tracks    func(room string) bool             // resyncer.tracks
}

// affectedBy returns the targets of the channels; nil stands for any channel.
func affectedBy(channels []string) affected {
	if channels == nil {
		return affected{all: true, broadcast: true}
	}
	var a affected
	for _, channel := range channels {
		t, name, ok := protocol.ParseChannel(channel)
		kind := slices.Index(messageTypes[:], t)
		switch {
		case !ok || kind < 0:
		case t == protocol.TypeBroadcast:
			a.broadcast = true
		case a.names[kind] == nil:
			a.names[kind] = map[string]bool{name: true}
		default:
			a.names[kind][name] = true
		}
	}
	return a
}

func (a *affected) includes(kind hub.Kind, name string) bool { return a.all || a.names[kind][name] }

// report returns what may be missing for one client; ok is false if nothing is.
func (a *affected) report(h *hub.Hub, m *hub.Member) (r protocol.Resync, ok bool) {
	r.Broadcast = a.broadcast
	own := m.ID()
	r.Client = a.includes(hub.Client, own)
	if user := h.User(m); user != "" {
		r.User = a.includes(hub.User, user)
	}
	for _, name := range h.MemberRooms(m) {
		switch {
		case !a.includes(hub.Room, name) || a.all && a.tracks(name):
		case name == own:
			r.Client = true // messages to the room with the client's id are messages to the client
		default:
			r.Rooms = append(r.Rooms, name)
		}
	}
	slices.Sort(r.Rooms) // so that clients in the same rooms get the same payload
	return r, len(r.Rooms) > 0 || r.Broadcast || r.User || r.Client
}
