package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/internal/app/api"
	"github.com/hearthws/hearth/internal/app/metrics"
)

// An engine is a hearth.Server without its types.
type engine interface {
	api.Server
	Start(ctx context.Context) error
	Serve(ln net.Listener, other http.Handler) error
	Shutdown(ctx context.Context) error
	Health() broker.Health
	Stats() hearth.Stats
}

// newEngine makes the hearth.Server: with the demo in development mode, and otherwise with the
// service.
func (s *Server) newEngine() error {
	if s.cfg.Auth == AuthDevelopment {
		demo := newDemo(s.limited)
		hc := hearthConfig[credentials, *visitor](s.cfg, s.log, s.limited)
		demo.callbacks(&hc)
		srv, err := newServer(s, hc)
		if err != nil {
			return err
		}
		demo.srv, s.hearth = srv, srv
		return nil
	}
	service, err := newService(s.cfg, s.log, s.limited)
	if err != nil {
		return err
	}
	hc := hearthConfig[json.RawMessage, *state](s.cfg, s.log, s.limited)
	service.callbacks(&hc)
	srv, err := newServer(s, hc)
	if err != nil {
		return err
	}
	service.srv, s.hearth, s.service = srv, srv, service
	service.handle()
	return nil
}

// newServer makes a hearth.Server with the tickets, the origins and the broker of s.
func newServer[A, M any](s *Server, hc hearth.Config[A, M]) (*hearth.Server[A, M], error) {
	var err error
	if hc.Resume, err = resumeConfig(s.cfg); err != nil {
		return nil, fmt.Errorf("configure tickets: %w", err)
	}
	origins, err := checkOrigin(s.cfg, s.limited)
	if err != nil {
		return nil, fmt.Errorf("configure the origins: %w", err)
	}
	s.origins.Store(&origins)
	hc.Upgrade.CheckOrigin = func(r *http.Request) bool { return (*s.origins.Load())(r) }
	if s.redis != nil {
		hc.Broker = s.redis
	} else {
		hc.Broker = memory.NewBus(memory.Config{History: s.cfg.History}).Broker()
	}
	if s.durations != nil {
		metrics.Observe(s.durations, &hc)
	}
	srv, err := hearth.New(hc)
	if err != nil {
		return nil, fmt.Errorf("configure the engine: %w", err)
	}
	s.broker, s.members, s.figures = hc.Broker, api.MembersOf(srv), metrics.Of(srv)
	return srv, nil
}

// hearthConfig translates the options to the configuration of package hearth, without callbacks.
// limited is the logger for lines that clients can cause.
func hearthConfig[A, M any](c Config, log, limited *slog.Logger) hearth.Config[A, M] {
	transport := hearth.Transport(c.Transport)
	if transport == "auto" {
		transport = hearth.TransportAuto
	}
	encryption := hearth.EncryptionMode(c.Encryption)
	if encryption == "off" {
		encryption = hearth.EncryptionOff
	}
	hc := hearth.Config[A, M]{
		Name:         c.Name,
		Path:         c.Path,
		DefaultRooms: c.DefaultRooms,
		Resync:       c.Resync,
		Timeouts:     hearth.Timeouts{Auth: c.AuthTimeout, HeartbeatInterval: zeroMeans(hearth.Disabled, c.HeartbeatInterval), Heartbeat: c.HeartbeatTimeout, Idle: zeroMeans(hearth.Disabled, c.IdleTimeout), Close: c.CloseTimeout, Drain: c.Drain},

		Limits:      hearth.Limits{MaxPayload: c.MaxPayload, BackpressureLimit: c.BackpressureLimit, CloseOnBackpressure: c.CloseOnBackpressure, MaxConnections: zeroMeans(hearth.Unlimited, c.MaxConnections), MaxUnauthenticated: zeroMeans(hearth.Unlimited, c.MaxUnauthenticated), MaxUnauthenticatedPerAddr: zeroMeans(hearth.Unlimited, c.MaxUnauthenticatedPerAddr), UnauthenticatedMessages: c.UnauthenticatedMessages, UnauthenticatedPayload: min(c.UnauthenticatedPayload, c.MaxPayload), MaxRooms: zeroMeans(hearth.Unlimited, c.MaxRooms), RoomNames: zeroMeans(hearth.Unlimited, c.RoomNames), ClientQueue: c.ClientQueue, SendQueue: c.SendQueue, MessageRate: c.MessageRate, ByteRate: c.ByteRate},
		Compression: c.Compression,
		Encryption:  hearth.Encryption{Mode: encryption},
		Loops:       c.Loops,
		Transport:   transport,
		Logger:      log,
	}
	if len(c.TrustedProxies) > 0 {
		hc.Upgrade.ClientAddr = forwardedFor(c.TrustedProxies, limited)
	}
	return hc
}

// zeroMeans returns none for 0, and v otherwise. The options use 0 for "none", while 0 in
// hearth.Config means the default.
func zeroMeans[T int | time.Duration](none, v T) T {
	if v == 0 {
		return none
	}
	return v
}
