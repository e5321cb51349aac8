package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/app/api"
	"github.com/hearthws/hearth/internal/app/metrics"
	"github.com/hearthws/hearth/internal/ratelog"
)

// ErrCutShort is returned by Run if a shutdown took longer than Config.ShutdownTimeout and
// connections were cut before the close handshake.
var ErrCutShort = errors.New("shutdown was cut short")

const (
	healthPath = "/healthz"
	readyPath  = "/readyz"

	waitingLogInterval = 3 * time.Second // between two log lines while the start waits for Redis
)

// A Server is a running instance. Create it with New, then call Listen and Run, once each.
type Server struct {
	// Set by New, then read-only.
	cfg     Config
	log     *slog.Logger
	logs    *ratelog.Handler // limits the rate of lines, and writes to log
	limited *slog.Logger     // writes to logs: for lines that clients can cause
	hearth  engine
	handler http.Handler  // serves everything except WebSocket
	tls     *tls.Config   // nil: plain TCP
	redis   *redis.Broker // nil: a single server
	service *service      // nil: development mode

	figures   metrics.Source
	durations *metrics.Durations // nil without admin
	requests  *metrics.Requests  // nil without api
	admin     *sideListener      // nil: none
	api       *sideListener      // nil: none
	broker    broker.Broker
	members   func(room string, limit int) ([]api.Member, int)

	// Set by Listen, then read-only.
	ln net.Listener

	started chan struct{} // closed when the server accepts clients

	origins  atomic.Pointer[func(*http.Request) bool] // the check of origins; replaced by Reload
	apiKeys  atomic.Pointer[api.Keys]                 // replaced by Reload
	draining atomic.Bool
}

// New creates a server that logs to log. It opens no connections.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	s := &Server{cfg: cfg, log: log, logs: ratelog.NewHandler(log.Handler()), started: make(chan struct{})}
	s.limited = slog.New(s.logs)
	if cfg.TLSCert != "" {
		cert, err := newCertificate(cfg.TLSCert, cfg.TLSKey, log)
		if err != nil {
			return nil, err
		}
		// WebSocket needs HTTP/1.1, and the page is too small to gain from HTTP/2.
		s.tls = &tls.Config{GetCertificate: cert.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	if cfg.Redis != "" {
		b, err := redis.New(redis.Config{URL: cfg.Redis, ConnectTimeout: cfg.RedisTimeout, Prefix: cfg.RedisPrefix, Patterns: cfg.RedisPatterns, History: cfg.History, Logger: log})
		if err != nil {
			return nil, fmt.Errorf("configure Redis: %w", err)
		}
		s.redis = b
	}
	if cfg.Side.Admin != "" {
		s.durations = metrics.NewDurations()
	}
	if err := s.newEngine(); err != nil {
		return nil, err
	}
	if err := s.newAPI(); err != nil {
		return nil, err
	}
	if err := s.newAdmin(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+healthPath, s.health)
	mux.HandleFunc("GET "+readyPath, s.ready)
	if cfg.Auth == AuthDevelopment {
		page, err := newPage(cfg)
		if err != nil {
			return nil, err
		}
		mux.Handle("GET /{$}", page)
		mux.Handle("GET "+assetPath, page)
	}
	s.handler = withDeadline(mux)
	return s, nil
}

// Listen binds the addresses. It is separate from Run so that the caller knows them before the
// first client connects.
func (s *Server) Listen() error {
	if err := s.listen(); err != nil {
		return err
	}
	bound := []io.Closer{s.ln}
	for _, side := range []*sideListener{s.admin, s.api} {
		if side == nil {
			continue
		}
		if err := side.listen(); err != nil {
			for _, ln := range bound {
				ln.Close()
			}
			return err
		}
		bound = append(bound, side.ln)
	}
	return nil
}

// listen binds the address for clients.
func (s *Server) listen() error {
	ln, err := listenTCP(s.cfg.Listen, "listen")
	if err != nil {
		return err
	}
	// Check the address: "localhost" may resolve to an address of another interface.
	if tcp, ok := ln.Addr().(*net.TCPAddr); s.cfg.Auth == AuthDevelopment && ok && !tcp.IP.IsLoopback() {
		ln.Close()
		return fmt.Errorf("listen on %s: it resolves to %v, which other machines can reach, and with auth %q clients need no password: use --listen 127.0.0.1:%d, or another --auth",
			s.cfg.Listen, tcp.IP, AuthDevelopment, tcp.Port)
	}
	s.ln = ln
	return nil
}

// URL returns the address of the page. Call it after Listen.
func (s *Server) URL() string {
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	host, _, _ := net.SplitHostPort(s.cfg.Listen)
	_, port, _ := net.SplitHostPort(s.ln.Addr().String())
	if host == "" {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + "/"
}

// Run serves until ctx is done, then drains: it stops accepting connections, closes the clients
// over Config.Drain, and waits for them to finish, for Config.ShutdownTimeout in all. It returns
// nil after a complete drain, an error that wraps ErrCutShort after an incomplete one, and the
// cause if serving fails.
func (s *Server) Run(ctx context.Context) error {
	defer s.logs.Close()
	background := context.WithoutCancel(ctx) // ctx ends serving, not the drain
	if s.admin != nil {
		s.admin.start("other machines can read the metrics: use an address that only your monitoring can reach")
		defer s.admin.stop()
	}
	if s.api != nil {
		s.api.start("keys of the API can be read on the network: use a loopback address, or a proxy that ends TLS")
		defer s.api.stop()
	}
	if err := s.start(ctx); err != nil {
		s.ln.Close()
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		return err
	}
	ln := s.ln
	if s.tls != nil {
		ln = tls.NewListener(ln, s.tls)
	}
	if s.service != nil {
		s.service.start()
		defer s.service.close()
	}
	ended := make(chan error, 1)
	// Ends with hearth.Server.Shutdown, or when serving fails. drain waits for it.
	go func() { ended <- s.hearth.Serve(ln, s.handler) }()
	s.announce()

	select {
	case <-ctx.Done():
		return s.drain(background, ended)
	case err := <-ended:
		ended <- nil
		return errors.Join(fmt.Errorf("serve on %v: %w", s.ln.Addr(), err), s.drain(background, ended))
	}
}

// start starts the hearth.Server. It logs while it waits for Redis.
func (s *Server) start(ctx context.Context) error {
	started := make(chan error, 1)
	// Ends when Redis is connected, after Config.RedisTimeout, or with ctx. start waits for it
	// below.
	go func() { started <- s.hearth.Start(ctx) }()
	tick := time.NewTicker(waitingLogInterval)
	defer tick.Stop()
	for begun := time.Now(); ; {
		select {
		case err := <-started:
			if s.redis != nil && errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("connect to Redis: not reachable within %v (redis-timeout): %w", s.cfg.RedisTimeout, err)
			}
			return err
		case <-tick.C:
			if s.redis != nil {
				h, left := s.redis.Health(), s.cfg.RedisTimeout-time.Since(begun)
				s.log.Warn("waiting for Redis", "redis", s.redis.String(), "reason", h.Reason, "error", h.Err, "left", left.Round(time.Second))
			}
		}
	}
}

// warnOpen warns about settings that allow clients more than most applications want.
func (s *Server) warnOpen() {
	switch s.cfg.Auth {
	case AuthDevelopment:
		s.log.Warn("DEVELOPMENT MODE: CLIENTS SIGN IN WITH ANY NAME, WITHOUT A PASSWORD", "option", "auth", "reachable", "from this machine only")
	case AuthAnonymous:
		s.log.Warn("clients connect without credentials", "option", "auth")
	case AuthJWT:
		if len(s.cfg.JWT.Audiences) == 0 {
			s.log.Warn("the audience of tokens is not checked: tokens for other services with the same key are accepted", "option", "jwt-audience")
		}
		if s.cfg.JWT.Issuer == "" {
			s.log.Warn("the issuer of tokens is not checked: all issuers with the same key are accepted", "option", "jwt-issuer")
		}
	}
	if s.cfg.Rules.Publish.String() != "" && s.cfg.MessageRate == 0 {
		s.log.Warn("clients may publish as many messages as they like", "option", "message-rate")
	}
}

// Started returns a channel that is closed when Run accepts clients.
func (s *Server) Started() <-chan struct{} { return s.started }

// announce logs the address of the server, and warns if it is open.
func (s *Server) announce() {
	close(s.started)
	s.warnOpen()
	where := "none, a single server"
	if s.redis != nil {
		where = s.redis.String()
	}
	s.log.Info("serving", "url", s.URL(), "websocket", s.cfg.Path, "auth", s.cfg.Auth, "broker", where)
	if s.api != nil {
		s.log.Info("serving the HTTP API", "url", s.APIURL())
	}
	if s.admin != nil {
		s.log.Info("serving metrics", "url", s.AdminURL()+"metrics")
	}
	if s.cfg.Auth != AuthDevelopment {
		return
	}
	if s.cfg.Encryption == string(hearth.EncryptionRequired) {
		s.log.Warn("the demo page does not support encryption and cannot connect: start with --encryption optional to use it")
		return
	}
	s.log.Info("open the url in two browser tabs and sign in with two names; press Ctrl-C to stop")
}

func (s *Server) drain(ctx context.Context, ended <-chan error) error {
	s.draining.Store(true)
	start := time.Now()
	if s.cfg.DrainDelay > 0 {
		s.log.Info("draining: still serving, /healthz and /readyz answer 503", "for", s.cfg.DrainDelay)
		time.Sleep(s.cfg.DrainDelay)
	}
	s.log.Info("draining: closing all clients (signal again to exit now)", "clients", s.hearth.Stats().Clients, "over", s.cfg.Drain, "timeout", s.cfg.ShutdownTimeout)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer cancel()
	err := s.hearth.Shutdown(ctx)
	s.ln.Close() // already closed, unless Shutdown gave up
	<-ended
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w after %v (shutdown-timeout)", ErrCutShort, s.cfg.ShutdownTimeout)
	}
	if err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	s.log.Info("drained", "took", time.Since(start).Round(time.Millisecond))
	return nil
}

// health answers 200 while the server serves, and 503 from the first signal on. It ignores Redis:
// restarting the process would not repair Redis.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		respond(w, http.StatusServiceUnavailable, "draining")
		return
	}
	respond(w, http.StatusOK, "ok")
}

// ready tells load balancers whether to send new clients here.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	code, text := s.readiness()
	respond(w, code, text)
}

// readiness returns the answer to /readyz. New clients should not connect here while the server
// drains, or while it is cut off from the other servers: a client is better served elsewhere. The
// connected clients are served in any case.
func (s *Server) readiness() (code int, text string) {
	h := s.hearth.Health()
	switch {
	case s.draining.Load():
		return http.StatusServiceUnavailable, "draining"
	case h.State == broker.StateIdle:
		return http.StatusServiceUnavailable, "starting"
	case h.State == broker.StateDown:
		return http.StatusServiceUnavailable, "cut off from other servers: " + redisText(h)
	case h.State == broker.StateDegraded:
		return http.StatusOK, "ok, but " + redisText(h)
	default:
		return http.StatusOK, "ok"
	}
}

// redisText returns the state of Redis, its start time and its reason, for people and alerts. It is
// public, so it has no address and no secret.
func redisText(h broker.Health) string {
	text := fmt.Sprintf("Redis is %v since %s", h.State, h.Since.UTC().Format(time.RFC3339))
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	return text
}

func respond(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}
