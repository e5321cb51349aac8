// Command wsecho sends every WebSocket message back, at any path. Conformance tools can test it. It
// uses only internal/ws and a transport.
//
//	wsecho -listen 127.0.0.1:9001 -transport epoll -compression -max 16777216
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/epoll"
	"github.com/hearthws/hearth/internal/transport/netconn"
)

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:9001", "address to listen on")
	flag.StringVar(&o.transport, "transport", "epoll", "epoll or netconn")
	flag.BoolVar(&o.compression, "compression", false, "agree to permessage-deflate")
	flag.IntVar(&o.max, "max", 16<<20, "longest message, in bytes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, func(addr net.Addr) { fmt.Println("listening on", addr) }); err != nil {
		fmt.Fprintln(os.Stderr, "wsecho:", err)
		os.Exit(1)
	}
}

type options struct {
	listen, transport string
	compression       bool
	max               int
}

// run serves until ctx is done. It calls ready with the address on which it listens.
func run(ctx context.Context, o options, ready func(net.Addr)) error {
	e := &echoer{compression: o.compression, max: o.max}
	// Enough for clients that read large messages slowly.
	cfg := transport.Config{BackpressureLimit: 4 * o.max, Tick: e.tick, CloseTimeout: time.Minute}
	var err error
	switch o.transport {
	case "epoll":
		e.tr, err = epoll.New(cfg)
	case "netconn":
		e.tr, err = netconn.New(cfg)
	default:
		err = fmt.Errorf("unknown transport %q: use epoll or netconn", o.transport)
	}
	if err != nil {
		return err
	}
	defer e.tr.Close()
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	ready(ln.Addr())
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
