// Package api is the HTTP API of a server, by which applications send to clients, ask about them
// and disconnect them. It describes itself in OpenAPI 3.1 at /openapi.json, from the types of the
// handlers. Errors are problem details (RFC 9457).
//
// Each request needs a key with the scope of its operation; see Keys.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/emitter"
)

// The limits of requests.
const (
	maxRequests = 32              // at the same time
	maxBody     = 4 << 20         // bytes
	maxMessages = 1000            // of a batch
	maxWait     = 5 * time.Second // for the broker and for other servers
)

// A Server has the operations of a server. *hearth.Server is one.
type Server interface {
	hearth.Sender
	ID() string
	Nodes() []hearth.NodeInfo
	Count(ctx context.Context, t hearth.Target) (int, error)
	Disconnect(ctx context.Context, t hearth.Target, code int, reason string) (int, error)
	Join(ctx context.Context, t hearth.Target, rooms ...string) (int, error)
	Leave(ctx context.Context, t hearth.Target, rooms ...string) (int, error)
	History(ctx context.Context, room string, after hearth.Position, limit int) (hearth.History, error)
	RemoveHistory(ctx context.Context, room string) error
}

// Config configures a handler. All fields are required, except Observe.
type Config struct {
	Server  Server
	Emitter *emitter.Emitter // on the broker of the server

	// Broker names the service that confirms messages, such as "Redis". If it is empty, the server
	// is the only one: then messages go to the queues of its clients directly.
	Broker string

	HasHistory func(room string) bool // whether a room has history
	Members    func(room string, limit int) (members []Member, total int)

	// Keys returns the keys that are valid now.
	Keys func() *Keys
	Log  *slog.Logger

	// Observe is called after each request. operation is a name from the document, or "none".
	Observe func(operation string, status int, took time.Duration)
}

// A Member is a client in a room.
type Member struct {
	Client string `json:"client" doc:"id of the client"`
	User   string `json:"user,omitempty" doc:"id of its user; absent for an anonymous client"`
}

// MembersOf returns the function for Config.Members.
func MembersOf[A, M any](s *hearth.Server[A, M]) func(room string, limit int) ([]Member, int) {
	return func(room string, limit int) ([]Member, int) {
		clients := s.Local().Clients(hearth.ToRoom(room))
		members := make([]Member, 0, min(limit, len(clients)))
		for _, c := range clients[:cap(members)] {
			members = append(members, Member{Client: c.ID(), User: c.UserID()})
		}
		return members, len(clients)
	}
}

// An api serves the requests. It is safe for concurrent use.
type api struct {
	Config // read-only
	huma   huma.API
	keys   *window
}

const about = `Send events to the clients of all servers that share a broker, ask about clients, and disconnect
them. Each request needs a key: Authorization: Bearer KEY.

A target is exactly one of client, user, room and all. Counts, disconnect, join and leave ask all
servers: "missing" and "failed" list the servers whose part is missing in the result.`

// New returns the handler.
func New(c Config) http.Handler {
	config := huma.DefaultConfig("Hearth", "1")
	config.Info.Description = about
	config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", nil
	config.Transformers = []huma.Transformer{withoutValues}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"key": {Type: "http", Scheme: "bearer"}}
	mux := http.NewServeMux()
	a := &api{Config: c, huma: humago.New(mux, config), keys: newWindow()}
	if a.Observe == nil {
		a.Observe = func(string, int, time.Duration) {}
	}
	a.huma.UseMiddleware(a.observe, a.authorize)
	a.registerSends()
	a.registerClients()
	a.registerQueries()
	mux.HandleFunc("/", a.unknown)
	return a.bounded(mux)
}

// withoutValues removes the values that were rejected from a problem: they can be large.
func withoutValues(_ huma.Context, _ string, body any) (any, error) {
	if p, ok := body.(*huma.ErrorModel); ok {
		for _, e := range p.Errors {
			e.Value = nil
		}
	}
	return body, nil
}

// register adds an operation.
func register[I, O any](a *api, scope Scope, method, path, id, summary, description string, handler func(context.Context, *I) (*O, error)) {
	op := huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Description: description, MaxBodyBytes: maxBody,
		Security: []map[string][]string{{"key": {string(scope)}}},
		Errors:   []int{400, 401, 403, 404, 408, 409, 413, 415, 422, 500, 503, 504},
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, maxWait)
		defer cancel()
		out, err := handler(ctx, in)
		if err != nil {
			return nil, a.problem(err)
		}
		return out, nil
	})
}

// observe reports the request when it is over.
func (a *api) observe(ctx huma.Context, next func(huma.Context)) {
	began := time.Now()
	next(ctx)
	a.Observe(ctx.Operation().OperationID, ctx.Status(), time.Since(began))
}

// authorize rejects a request without a key that has the scope of the operation.
func (a *api) authorize(ctx huma.Context, next func(huma.Context)) {
	key, ok := a.Keys().find(ctx.Header("Authorization"))
	if !ok {
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="hearth"`)
		a.fail(ctx, http.StatusUnauthorized, "a valid key is required: Authorization: Bearer KEY")
		return
	}
	if scope := Scope(ctx.Operation().Security[0]["key"][0]); !key.allows(scope) {
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="hearth", error="insufficient_scope", scope="`+string(scope)+`"`)
		a.fail(ctx, http.StatusForbidden, "the key "+key.name+" does not have the scope "+string(scope))
		return
	}
	next(huma.WithValue(ctx, keyName{}, key.name))
}

// keyName is the key of the context value that has the name of the request's key.
type keyName struct{}

func (a *api) fail(ctx huma.Context, status int, detail string) {
	if err := huma.WriteErr(a.huma, ctx, status, detail); err != nil {
		a.Log.Debug("write the response failed", "error", err)
	}
}

// bounded rejects requests beyond maxRequests.
func (a *api) bounded(h http.Handler) http.Handler {
	slots := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		// If the connection does not support deadlines, answer without one.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(6 * maxWait))
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			h.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			a.write(w, http.StatusServiceUnavailable, "too many requests at the same time: try again later")
		}
	})
}

// unknown answers requests that no operation matches.
func (a *api) unknown(w http.ResponseWriter, _ *http.Request) {
	a.write(w, http.StatusNotFound, "there is no such path, or it does not have this method: see /openapi.json")
}
