package behaviour

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// stepTimeout is how long a step may take.
const stepTimeout = 30 * time.Second

// suite is the World of the script that is running. Each script begins with a new one.
type suite struct {
	mu    sync.Mutex
	world *World // guarded by mu
}

// Serve runs the server's side of the suite for a client in another process. It writes one line of
// JSON to out, {"clients":"ws://…","control":"http://…"}, and returns when in ends. docs/clients.md
// describes the requests to control.
func Serve(in io.Reader, out io.Writer) error {
	s := &suite{world: New()}
	clients, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	var running sync.WaitGroup
	running.Go(func() { s.accept(clients) }) // ends with clients
	web := &http.Server{Handler: s, ReadHeaderTimeout: stepTimeout}
	running.Go(func() { _ = web.Serve(control) }) // ends with web
	if err := json.NewEncoder(out).Encode(map[string]string{
		"clients": "ws://" + clients.Addr().String() + "/ws", "control": "http://" + control.Addr().String() + "/",
	}); err != nil {
		return fmt.Errorf("print the addresses: %w", err)
	}
	_, err = io.Copy(io.Discard, in)
	err = errors.Join(err, clients.Close(), web.Close(), s.reset(New()))
	running.Wait()
	return err
}

func (s *suite) accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		w := s.world
		s.mu.Unlock()
		_ = w.Accept(context.Background(), conn) // without a server the connection is closed
	}
}

// reset ends the world and begins with the next one.
func (s *suite) reset(next *World) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.world
	s.world = next
	return w.Close()
}

// ServeHTTP performs the step in the body of a request, a JSON array. It answers 204, or 422 with
// the error. The step ["reset"] begins a new script.
func (s *suite) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), stepTimeout)
	defer cancel()
	var step []json.RawMessage
	err := json.NewDecoder(http.MaxBytesReader(rw, r.Body, 1<<20)).Decode(&step)
	switch {
	case err != nil:
	case len(step) == 1 && string(step[0]) == `"reset"`:
		err = s.reset(New())
	default:
		s.mu.Lock()
		w := s.world
		s.mu.Unlock()
		err = w.Do(ctx, step)
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}
