package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// maxStreams bounds the streams that are open at the same time.
const maxStreams = 16

// The interval between two events of a stream.
const (
	defaultInterval = time.Second
	minInterval     = 100 * time.Millisecond
	maxInterval     = time.Minute
)

// streams serves /figures/stream. It is safe for concurrent use.
type streams struct {
	figures func() Figures // read-only
	slots   chan struct{}  // has one element for each open stream
}

// serve sends the figures at once, and then at each interval, until the client has left or the
// server ends.
func (s *streams) serve(w http.ResponseWriter, r *http.Request) {
	interval := defaultInterval
	if text := r.URL.Query().Get("interval"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < minInterval || d > maxInterval {
			http.Error(w, fmt.Sprintf("interval takes %v to %v, as in ?interval=1s", minInterval, maxInterval), http.StatusBadRequest)
			return
		}
		interval = d
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		http.Error(w, fmt.Sprintf("%d streams are open, which is the limit: close one, or read /figures", maxStreams), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // for proxies: pass events on at once
	control := http.NewResponseController(w)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := s.send(w, control); err != nil {
			return // the client has left, or is too slow
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// send writes one event.
func (s *streams) send(w http.ResponseWriter, control *http.ResponseController) error {
	b, err := json.Marshal(s.figures())
	if err != nil {
		return fmt.Errorf("encode the figures: %w", err)
	}
	if err := control.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return fmt.Errorf("set the deadline: %w", err)
	}
	if _, err := fmt.Fprintf(w, "event: figures\ndata: %s\n\n", b); err != nil {
		return fmt.Errorf("write the event: %w", err)
	}
	return control.Flush()
}
