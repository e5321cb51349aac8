package node

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
)

// Reasons for which handshakes are rejected.
const (
	tooManyConnections = "too many connections"
	tooManyHandshakes  = "too many handshakes at the same time"
)

// upgrader checks opening handshakes and calls the application's callbacks for them. Any goroutine.
type upgrader struct {
	// Set when made, then read-only.
	callbacks   Upgrade
	compression bool
	maxConns    int // for the log
	maxPending  int // for the log
	running     *callbackLimit
	env         *session.Env
	log         *slog.Logger
}

func newUpgrader(cfg Config, env *session.Env) *upgrader {
	return &upgrader{
		callbacks: cfg.Upgrade, compression: cfg.Compression, maxConns: cfg.Limits.MaxConnections,
		maxPending: cfg.Limits.MaxUnauthenticated, running: newCallbackLimit(cfg.Limits), env: env, log: env.Log,
	}
}

// check checks that a request is a valid handshake. It calls no callbacks.
func (u *upgrader) check(r *http.Request) (ws.Accepted, error) {
	accepted, err := ws.Upgrade(r)
	if err != nil {
		return accepted, err
	}
	accepted.Deflate = accepted.Deflate && u.compression
	return accepted, nil
}

// callbacksMayBlock reports whether the application's callbacks have to be called for a handshake.
// They may block, so an event loop must not call them.
func (u *upgrader) callbacksMayBlock(a ws.Accepted) bool {
	c := &u.callbacks
	return c.CheckOriginMayBlock || c.ClientAddr != nil || c.FromRequest != nil || c.Subprotocol != nil && len(a.Offered) > 0
}

// callbackResults are the results of the application's callbacks for a request.
type callbackResults struct {
	addr        netip.Addr // of ClientAddr; the zero Addr stands for the socket's peer
	fromRequest any
}

// A verdict is the decision about a valid handshake.
type verdict struct {
	accepted ws.Accepted
	results  callbackResults
	err      error // why the handshake is rejected; nil if it is accepted
}

// errInternal is the error of a handshake whose callbacks failed.
var errInternal = &ws.HandshakeError{Status: http.StatusInternalServerError, Message: "internal error"}

// runCallbacks calls the application's callbacks for a valid handshake. They may block. If one
// panics with http.ErrAbortHandler, that is the error, and the connection is to be closed without
// an answer. Every other failure is counted and logged. If a callback calls runtime.Goexit,
// runCallbacks does not return.
func (u *upgrader) runCallbacks(r *http.Request, accepted ws.Accepted) verdict {
	v := verdict{accepted: accepted}
	name := "" // of the callback that runs
	callback.Run(func() error {
		return u.callAll(r, &v, &name)
	}, func(err error) { v.err = u.failure(r, name, err) })
	return v
}

// callAll calls the callbacks in turn until one fails. It sets name to each before the call.
func (u *upgrader) callAll(r *http.Request, v *verdict, name *string) (err error) {
	*name = "CheckOrigin"
	if !u.callbacks.CheckOrigin(r) {
		return &ws.HandshakeError{Status: http.StatusForbidden, Message: "origin not allowed"}
	}
	if u.callbacks.Subprotocol != nil && len(v.accepted.Offered) > 0 {
		*name = "Subprotocol"
		if v.accepted.Protocol, err = u.selectProtocol(r, v.accepted.Offered); err != nil {
			return err
		}
	}
	if u.callbacks.ClientAddr != nil {
		*name = "ClientAddr"
		v.results.addr = u.callbacks.ClientAddr(r).Unmap()
	}
	if u.callbacks.FromRequest != nil {
		*name = "FromRequest"
		v.results.fromRequest, err = u.callbacks.FromRequest(r)
		if err != nil && errors.Is(err, session.ErrRejected) {
			u.log.Debug("FromRequest rejected a handshake", "cause", err, "address", r.RemoteAddr)
			return &ws.HandshakeError{Status: http.StatusUnauthorized, Message: "not authorized"}
		}
	}
	return err
}

// failure returns the error of a handshake for which a callback returned err or panicked. If that
// is a fault of the application, failure counts and logs it.
func (u *upgrader) failure(r *http.Request, name string, err error) error {
	var p *callback.PanicError
	if errors.As(err, &p) && p.Value == http.ErrAbortHandler {
		return http.ErrAbortHandler
	}
	var h *ws.HandshakeError
	if errors.As(err, &h) {
		return h
	}
	u.env.CallbackFailed(name, err, "address", r.RemoteAddr)
	return errInternal
}

// selectProtocol asks the application which of the offered subprotocols to use.
func (u *upgrader) selectProtocol(r *http.Request, offered []string) (string, error) {
	selected, ok := u.callbacks.Subprotocol(r, slices.Clone(offered))
	if !ok {
		return "", &ws.HandshakeError{Status: http.StatusBadRequest, Message: "no acceptable subprotocol offered"}
	}
	if selected != "" && !slices.Contains(offered, selected) {
		u.env.Stats.CallbackErrors.Add(1)
		u.log.Error("Config.Upgrade.Subprotocol selected what the client did not offer", "selected", selected, "offered", len(offered))
		return "", errInternal
	}
	return selected, nil
}

// logRejected logs why a handshake is rejected, and which setting would allow it.
func (u *upgrader) logRejected(r *http.Request, h *ws.HandshakeError) {
	const message = "handshake rejected: "
	switch {
	case h.Status == http.StatusForbidden && !u.callbacks.CheckOriginMayBlock:
		u.log.Warn(message+h.Message, "setting", "Config.Upgrade.Origins", "origin", truncate(r.Header.Get("Origin")), "host", truncate(r.Host), "address", r.RemoteAddr)
	case h.Message == tooManyConnections:
		u.log.Warn(message+h.Message, "setting", "Limits.MaxConnections", "limit", u.maxConns, "address", r.RemoteAddr)
	case h.Message == tooManyHandshakes:
		u.log.Warn(message+h.Message, "setting", "Limits.MaxUnauthenticated", "limit", u.maxPending, "address", r.RemoteAddr)
	case h.Status == http.StatusNotFound:
		u.log.Info(message+h.Message, "setting", "Config.Path", "path", truncate(r.URL.Path), "address", r.RemoteAddr)
	case h.Status == http.StatusForbidden:
		u.log.Info(message+h.Message, "setting", "Config.Upgrade.CheckOrigin", "origin", truncate(r.Header.Get("Origin")),
			"host", truncate(r.Host), "address", r.RemoteAddr)
	default: // the request is invalid, or the application rejected it
		u.log.Info("handshake rejected", "status", h.Status, "reason", h.Message, "address", r.RemoteAddr)
	}
}

// handshakeError returns the HTTP response for an error.
func handshakeError(err error) *ws.HandshakeError {
	var h *ws.HandshakeError
	if errors.As(err, &h) {
		return h
	}
	return errInternal
}

// unavailable returns the error of a handshake that the client may try again.
func unavailable(why string) error {
	return &ws.HandshakeError{
		Status: http.StatusServiceUnavailable, Message: why, Header: http.Header{"Retry-After": {"1"}},
	}
}

// truncate bounds how much of a log line a client can fill.
func truncate(s string) string {
	const limit = 200
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
