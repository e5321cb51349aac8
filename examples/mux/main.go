// Command mux mounts Hearth in an application with a page and an API, behind middleware, with TLS
// if it has a certificate.
//
// A Server is an http.Handler. Middleware must allow it to hijack connections: a wrapper of
// http.ResponseWriter needs the method Unwrap, as below. The API sends to clients like any
// callback:
//
//	go run ./examples/mux
//	curl -d 'the kettle is on' http://localhost:8080/api/announce
//
// With -cert and -key it serves https and wss. Hearth serves TLS connections with goroutines
// instead of event loops; the application need not change.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hearthws/hearth"
)

// Clients are anonymous and have no state.
type (
	nothing = struct{}
	server  = hearth.Server[nothing, nothing]
)

func main() {
	listen := flag.String("listen", "localhost:8080", "address to listen on")
	cert := flag.String("cert", "", "certificate file (PEM); with -key: serve TLS")
	key := flag.String("key", "", "key file (PEM)")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", *listen)
	if err == nil {
		log.Info("listening", "address", ln.Addr(), "tls", *cert != "")
		err = run(ctx, ln, *cert, *key, log)
	}
	if err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

// run serves on ln, which it closes, until ctx is done.
func run(ctx context.Context, ln net.Listener, cert, key string, log *slog.Logger) error {
	srv, err := newServer(log)
	if err == nil {
		err = srv.Start(ctx)
	}
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	web := &http.Server{Handler: logged(log, routes(srv)), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { // ends with web.Shutdown or an error; run waits for it
		defer close(failed)
		if cert != "" {
			failed <- web.ServeTLS(ln, cert, key)
		} else {
			failed <- web.Serve(ln)
		}
	}()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = errors.Join(err, web.Shutdown(end))
	<-failed
	return errors.Join(err, srv.Shutdown(end))
}

func newServer(log *slog.Logger) (*server, error) {
	return hearth.New(hearth.Config[nothing, nothing]{
		Path:   "/live/socket", // the full path of the request
		Logger: log,
		Authenticate: func(context.Context, hearth.AuthRequest[nothing]) (hearth.Identity[nothing], error) {
			return hearth.Identity[nothing]{}, nil
		},
	})
}

func routes(srv *server) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /live/socket", srv)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%d clients are connected\n", srv.Local().Count(hearth.ToAll()))
	})
	mux.HandleFunc("POST /api/announce", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4096))
		if err != nil {
			http.Error(w, "an announcement has at most 4096 bytes", http.StatusRequestEntityTooLarge)
			return
		}
		if err := srv.Send(r.Context(), hearth.ToAll(), "announcement", string(text)); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}

// logged is middleware that logs the status of each response.
func logged(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		next.ServeHTTP(rec, r)
		log.Info("request", "method", r.Method, "path", r.URL.Path, "status", rec.status)
	})
}

// recorder records the status of a response.
type recorder struct {
	http.ResponseWriter
	status int // 0 for a hijacked connection
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.NewResponseController, which Hearth uses, find the methods that this wrapper
// lacks.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
