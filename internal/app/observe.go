package app

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/hearthws/hearth/internal/app/admin"
	"github.com/hearthws/hearth/internal/app/metrics"
)

// newAdmin makes the listener for operators, if it is configured. It serves the figures of
// s.figures and s.durations.
func (s *Server) newAdmin() error {
	if s.cfg.Side.Admin == "" {
		return nil
	}
	c, reg := metrics.NewCollector(s.figures), prometheus.NewRegistry()
	all := []prometheus.Collector{
		c, s.durations, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector(),
	}
	if s.service != nil {
		all = append(all, s.service.counts.collectors()...)
	}
	for _, collector := range all {
		if err := reg.Register(collector); err != nil {
			return fmt.Errorf("configure the metrics: %w", err)
		}
	}
	if s.requests != nil {
		if err := reg.Register(s.requests); err != nil {
			return fmt.Errorf("configure the metrics: %w", err)
		}
	}
	s.admin = newSideListener("admin", s.cfg.Side.Admin, admin.New(admin.Config{
		Metrics: c, Registry: reg, Health: s.health, Ready: s.ready, Status: s.status, Log: s.log,
	}), s.log)
	s.admin.server.RegisterOnShutdown(s.admin.cancel) // streams do not end by themselves
	return nil
}

// status describes the server for the listener for operators.
func (s *Server) status() admin.Status {
	code, text := s.readiness()
	return admin.Status{Node: s.hearth.ID(), Name: s.cfg.Name, Ready: code == http.StatusOK, Status: text}
}

// AdminURL returns the address of the listener for operators, or "" if there is none. Call it after
// Listen.
func (s *Server) AdminURL() string {
	if s.admin == nil {
		return ""
	}
	return s.admin.url()
}
