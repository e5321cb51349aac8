package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/protocol"
)

// Errors of the API itself.
var (
	errTarget     = errors.New("a target is exactly one of client, user, room and all")
	errKeyReused  = errors.New("the key was used for another message within the last two minutes")
	errInProgress = errors.New("a request with this key is in progress: try again later")
	errNoMemory   = errors.New("too many requests with keys are in progress: try again later")
)

// problem converts an error of a handler to the answer.
func (a *api) problem(err error) error {
	status, detail := a.classify(err)
	model := &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail}
	if status == http.StatusServiceUnavailable {
		return huma.ErrorWithHeaders(model, http.Header{"Retry-After": {"1"}})
	}
	return model
}

// classify returns the status and the text for an error. The text says whether a message may have
// been sent, if the error leaves that open.
func (a *api) classify(err error) (status int, detail string) {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	switch {
	case is(errInProgress):
		return http.StatusConflict, err.Error()
	case is(errTarget, errKeyReused, protocol.ErrTarget, protocol.ErrEvent, protocol.ErrSyntax, protocol.ErrMessage, protocol.ErrCloseCode):
		return http.StatusUnprocessableEntity, err.Error()
	case is(redis.ErrTooLarge):
		return http.StatusRequestEntityTooLarge, err.Error()
	case is(broker.ErrNoHistory):
		return http.StatusNotFound, "no rule of the option history selects this room"
	case is(errNoMemory, broker.ErrQueueFull, hearth.ErrQueueFull, hearth.ErrTooManyCalls):
		return http.StatusServiceUnavailable, "the server is overloaded: try again later"
	case is(hearth.ErrNotRunning, broker.ErrClosed):
		return http.StatusServiceUnavailable, "the server is shutting down, or has not started yet"
	case is(broker.ErrDown):
		return http.StatusServiceUnavailable, "there is no connection to " + a.Broker + ": a message was probably not sent"
	case is(context.DeadlineExceeded, context.Canceled):
		return http.StatusGatewayTimeout, "no answer in time: a message may have been sent"
	default:
		a.Log.Error("request of the API failed", "error", err)
		return http.StatusInternalServerError, "internal error: the log of the server has the reason"
	}
}

// write writes a problem outside of an operation.
func (a *api) write(w http.ResponseWriter, status int, detail string) {
	a.Observe("none", status, 0)
	b, err := json.Marshal(huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail})
	if err != nil {
		a.Log.Error("encode a problem failed", "error", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write(b)
}
