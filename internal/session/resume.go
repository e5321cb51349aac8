package session

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// claimTimeout bounds the time for which a client waits until it is known on all nodes that it
// resumes, and until the callbacks for its last connection have returned.
const claimTimeout = 3 * time.Second

var (
	errNoTickets    = errors.New("this server has no tickets")
	errNoEncryption = errors.New("the client was encrypted, and this server has no handshake for it")
)

// A resumption is a Session on the goroutine that resumes it with a ticket.
type resumption struct {
	authentication
	id  json.RawMessage // of `authenticate`, or nil
	own hub.ID          // of the connection; set when the client gets that of the ticket
}

// startResuming starts to resume a session with the ticket in the client's `authenticate`. The work
// until the ticket is known to be authentic is small, and done at once.
func (w worker) startResuming(e protocol.Envelope, request protocol.ExtensionRequest) {
	t, err := w.env.openTicket(request.Ticket)
	if err != nil {
		rejectTicket(w.Session, err, e.ID)
		return
	}
	w.mu.Lock()
	c := w.transient.client()
	if c == nil { // the session has ended meanwhile
		w.mu.Unlock()
		return
	}
	c.resuming = true
	w.env.Running.Add(1)
	w.mu.Unlock()
	r := &resumption{id: e.ID, authentication: authentication{
		Session: w.Session, client: c, data: credentialData(e), request: request, grants: w.env.grantsFor(request, true), ticket: t,
	}}
	// It ends with the callbacks, whose context ends with the session. Env.Running waits for it.
	go r.run()
}

// isResuming reports whether a ticket of the client is being decided about.
func (w worker) isResuming() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.transient.client()
	return c != nil && c.resuming
}

// openTicket returns the ticket in a text, if it is valid now.
func (e *Env) openTicket(text string) (*ticket.Ticket, error) {
	if e.Tickets == nil {
		return nil, errNoTickets
	}
	t, err := e.Tickets.Sealer.Open(text, time.Now())
	if err == nil && t.Encrypted && e.Calls.Handshake == nil {
		err = errNoEncryption
	}
	return t, err
}

// rejectTicket answers that a ticket is not accepted. The connection stays.
func rejectTicket(s *Session, cause error, id json.RawMessage) {
	stats := &s.env.Stats.Tickets
	counter := &stats.Unavailable
	switch {
	case errors.Is(cause, ticket.ErrMalformed), errors.Is(cause, ticket.ErrForged), errors.Is(cause, ticket.ErrFuture):
		counter = &stats.Invalid
	case errors.Is(cause, ticket.ErrExpired):
		counter = &stats.Expired
	case errors.Is(cause, ticket.ErrUsed):
		counter = &stats.Used
	case errors.Is(cause, ticket.ErrRevoked):
		counter = &stats.Revoked
	}
	counter.Add(1)
	s.Debug("ticket rejected", "cause", cause)
	e := protocol.ClientError{Code: protocol.CodeTicketRejected, Message: "Ticket rejected"}
	s.member.Notice(ws.NewMessage(protocol.AppendClientError(nil, e, id)))
}

func (r *resumption) run() {
	defer r.env.Running.Done()
	err, claimed := r.restore(), false
	if err == nil {
		claimed, err = r.claim()
	}
	switch ended := !r.endClaim(err == nil); {
	case ended && claimed:
		r.lost()
	case ended:
	case err != nil:
		rejectTicket(r.Session, err, r.id)
	default:
		r.env.Stats.Tickets.Accepted.Add(1)
		r.env.Lobby.beginAuthentication(r.client)
		if !r.proceed() {
			r.lost()
		}
	}
}

// restore makes the identity of the client from the ticket, if the application agrees.
func (r *resumption) restore() (rejected error) {
	callback.Run(func() (err error) {
		r.identity, err = r.env.Calls.Restore(sessionContext{r.Session}, r.Session, r.ticket)
		return err
	}, func(err error) {
		if rejected = err; !errors.Is(err, ErrRejected) {
			r.callbackFailed(&r.env.Stats.CallbackErrors, "resume", err)
		}
	})
	return rejected
}

// claim makes sure that no other connection, on any node, uses the ticket or has the client's id.
// claimed means that the session belongs to this connection, also if there is an error.
func (r *resumption) claim() (claimed bool, err error) {
	if !r.beginClaim() {
		return false, nil // the ticket is not used
	}
	ctx, cancel := context.WithTimeout(sessionContext{r.Session}, claimTimeout)
	defer cancel()
	if err := r.env.Tickets.Claim(ctx, r.ticket); err != nil {
		return false, err
	}
	return true, r.env.Tickets.awaitEnd(ctx, r.ticket.Client)
}

// beginClaim gives the client the id of the ticket. It returns false if the session has ended.
func (r *resumption) beginClaim() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended() {
		return false
	}
	r.own = r.member.Key()
	r.member.SetKey(r.ticket.Client)
	return true
}

// endClaim records that the claim has ended. If the ticket is accepted, the client is
// authenticating, otherwise it gets its own id back. It returns false if the session has ended.
func (r *resumption) endClaim(accepted bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended() {
		return false
	}
	r.client.resuming = false
	switch {
	case accepted:
		r.state.Store(uint32(protocol.StateAuthenticating))
	case r.own != hub.ID{}:
		r.member.SetKey(r.own)
	}
	return true
}

// lost calls all callbacks for a session that was claimed, and whose connection ended before the
// client was admitted. The callbacks for its last connection were told that it is resumed, so
// without these the application would not learn of its end.
func (r *resumption) lost() {
	<-sessionContext{r.Session}.Done() // the lobby may be about to close the client
	_ = r.env.Tickets.awaitEnd(r.env.Base, r.ticket.Client)
	rooms := r.rooms()
	r.mu.Lock()
	r.value = r.identity.Value
	info := r.transient.closeInfo
	info.rooms, info.leavesQueued = append([]string{r.member.ID()}, rooms...), true
	r.mu.Unlock()

	if call := r.env.Calls.Connected; call != nil {
		r.runCallback("connected", func(ctx context.Context) error {
			call(ctx, r.Session)
			return nil
		})
	}
	for _, joined := range []bool{true, false} {
		for _, room := range rooms {
			worker{r.Session}.report(roomChange{room: room, joined: joined})
		}
	}
	if call := r.env.Calls.Disconnected; call != nil {
		r.runCallback("disconnected", func(ctx context.Context) error {
			call(ctx, r.Session, info.code, info.reason)
			return nil
		})
	}
}

// admitResumed is admit for a client with a ticket. It recovers what the client has missed.
func (a *authentication) admitResumed() (admitted bool) {
	r := recoverer{Session: a.Session, request: protocol.JoinRequest{Rooms: a.ticket.Rooms, Positions: a.request.Positions}}
	var requests []history.Request
	if a.grants.has(recovery) {
		requests = r.requests(a.rooms())
	}
	join := func(results []history.Result) {
		a.collectRecovered(r, requests, results)
		admitted = a.admit()
	}
	if len(requests) == 0 {
		join(nil)
	} else {
		a.env.History.Join(sessionContext{a.Session}, a.env.recoveryLimits(), requests, join)
	}
	if admitted && !slices.Contains(a.ticket.Rooms, a.ID()) {
		membership{a.Session}.leave(a.ID())
	}
	if admitted && a.env.Tickets.Register.Revoked(a.ticket) { // before the hub had the client
		a.reject(protocol.ErrAuthFailed)
	}
	return admitted
}

// collectRecovered sets what the client is told about its rooms, and the messages that it has
// missed. The welcome says how many follow, so both are queued together.
func (a *authentication) collectRecovered(r recoverer, requests []history.Request, results []history.Result) {
	joined, _, recovered := r.collect(joinOutcome{joined: a.ticket.Rooms}, nil, requests, results)
	if a.resumed = joined; joined == nil {
		a.resumed = []protocol.Joined{}
	}
	if len(recovered) == 0 {
		return
	}
	// Compressing takes time, and no message of a room with history is sent meanwhile.
	a.recovered = recoveredSeries(nil, recovered).Uncompressed()
	if !a.member.Fits(a.recovered) {
		a.recovered = nil
		notRecovered(a.resumed)
	}
}
