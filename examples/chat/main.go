// Command chat is a small chat server: rooms, private messages to a user, and lists of members.
//
// It shows how an application dispatches its events (one function each), rejects invalid ones,
// sends the history of a room to new members, tells a room about joins and leaves, and shuts down:
// first the HTTP server, then Hearth, which lets every client finish.
//
// Try it with two clients (any WebSocket client works). Send one JSON object per line:
//
//	{"event":"authenticate","data":{"name":"ada"}}       then   {"event":"join","data":{"rooms":["tea"]}}
//	{"event":"say","data":{"room":"tea","text":"hi"}}    and    {"event":"whisper","data":{"to":"bob","text":"psst"}}
//
// By default it listens on localhost:8080.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "address to listen on")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, log); err != nil {
		log.Error("chat ended", "error", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, listen string, log *slog.Logger) error {
	c, err := newChat(log)
	if err != nil {
		return err
	}
	if err := c.srv.Start(ctx); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/ws", c.srv)
	web := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	failed := make(chan error, 1)
	go func() { // ends with web.Shutdown or an error; run waits for it
		defer close(failed)
		failed <- web.ListenAndServe()
	}()
	log.Info("serving", "url", "ws://"+listen+"/ws")
	select {
	case err = <-failed:
	case <-ctx.Done():
	}

	// Hearth owns the upgraded connections: http.Server.Shutdown neither closes nor waits for them.
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = errors.Join(err, web.Shutdown(end))
	<-failed
	return errors.Join(err, c.srv.Shutdown(end))
}
