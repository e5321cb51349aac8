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

const tooManyConnections = "too many connections"

var errSelected = errors.New("subprotocol was not offered")

// upgrader checks opening handshakes and calls the application's callbacks for them. Any goroutine.
type upgrader struct {
	// Set when made, then read-only.
	callbacks   Upgrade
	compression bool
	maxConns    int // for the log
	stats       *session.Stats
	log         *slog.Logger
}

func newUpgrader(cfg Config, env *session.Env) *upgrader {
	return &upgrader{
		callbacks: cfg.Upgrade, compression: cfg.Compression, maxConns: cfg.Limits.MaxConnections, stats: env.Stats, log: env.Log,
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

// runCallbacks calls the application's callbacks for a valid handshake. They may block.
func (u *upgrader) runCallbacks(r *http.Request, a *ws.Accepted) (results callbackResults, err error) {
	err = callback.Call(func() (err error) {
		if !u.callbacks.CheckOrigin(r) {
			return &ws.HandshakeError{Status: http.StatusForbidden, Message: "origin not allowed"}
		}
		if u.callbacks.Subprotocol != nil && len(a.Offered) > 0 {
			if a.Protocol, err = u.selectProtocol(r, a.Offered); err != nil {
				return err
			}
		}
		if u.callbacks.ClientAddr != nil {
			results.addr = u.callbacks.ClientAddr(r).Unmap()
		}
		results.fromRequest, err = u.fromRequest(r)
		return err
	})
	return results, err
}

// fromRequest calls Upgrade.FromRequest, which takes what the application needs from the request.
func (u *upgrader) fromRequest(r *http.Request) (any, error) {
	if u.callbacks.FromRequest == nil {
		return nil, nil
	}
	value, err := u.callbacks.FromRequest(r)
	switch {
	case err == nil:
		return value, nil
	case errors.Is(err, session.ErrRejected):
		u.log.Debug("FromRequest rejected a handshake", "cause", err, "address", r.RemoteAddr)
		return nil, &ws.HandshakeError{Status: http.StatusUnauthorized, Message: "not authorized"}
	}
	u.stats.CallbackErrors.Add(1)
	u.log.Error("FromRequest callback failed", "error", err, "address", r.RemoteAddr)
	return nil, err
}

// selectProtocol asks the application which of the offered subprotocols to use.
func (u *upgrader) selectProtocol(r *http.Request, offered []string) (string, error) {
	selected, ok := u.callbacks.Subprotocol(r, slices.Clone(offered))
	if !ok {
		return "", &ws.HandshakeError{Status: http.StatusBadRequest, Message: "no acceptable subprotocol offered"}
	}
	if selected != "" && !slices.Contains(offered, selected) {
		u.log.Error("Config.Upgrade.Subprotocol selected what the client did not offer", "selected", selected, "offered", len(offered))
		return "", errSelected
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
	return &ws.HandshakeError{Status: http.StatusInternalServerError, Message: "internal error"}
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
