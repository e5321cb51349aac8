// Command server is a Hearth server for the tests of package clocks. It reads one command per line
// from its input, and exits at the end of the input.
//
//	step N   moves the wall clock by N seconds; needs the build tag stepclock, and the overlay
//	         that the test makes
//	times    prints the time since the first connection and since the last activity, as Client
//	         returns them
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/hearthws/hearth"
)

type none = struct{}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var lifetime time.Duration // of credentials
	cfg := hearth.Config[none, none]{
		Authenticate: func(context.Context, hearth.AuthRequest[none]) (id hearth.Identity[none], err error) {
			if lifetime > 0 {
				id.ExpiresAt = time.Now().Add(lifetime)
			}
			return id, nil
		},
	}
	// The argument sets those fields of the configuration that time out, and the lifetime.
	if err := json.Unmarshal([]byte(os.Args[1]), &struct {
		Lifetime, AuthTimeout, HeartbeatInterval, HeartbeatTimeout, IdleTimeout *time.Duration
		Transport                                                               *hearth.Transport
	}{&lifetime, &cfg.Timeouts.Auth, &cfg.Timeouts.HeartbeatInterval, &cfg.Timeouts.Heartbeat, &cfg.Timeouts.Idle, &cfg.Transport}); err != nil {
		return err
	}
	srv, err := hearth.New(cfg)
	if err != nil {
		return err
	}
	if err := srv.Start(context.Background()); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln, nil) }() // ends with Shutdown
	fmt.Println(ln.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var seconds int64
		if _, err := fmt.Sscanf(in.Text(), "step %d", &seconds); err == nil {
			step(seconds)
		}
		var connected, active time.Duration
		for _, c := range srv.Local().Clients(hearth.ToAll()) {
			connected = max(connected, time.Since(c.ConnectedAt()).Abs())
			active = max(active, time.Since(c.LastActivity()).Abs())
		}
		fmt.Println(connected.Milliseconds(), active.Milliseconds())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return err
	}
	<-served
	return nil
}
