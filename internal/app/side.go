package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"
)

// The limits of a side listener.
const (
	sideHeaderTimeout = 10 * time.Second
	sideReadTimeout   = 30 * time.Second
	sideIdleTimeout   = 2 * time.Minute
	sideHeaderBytes   = 16 << 10
	sideCloseTimeout  = 5 * time.Second // for requests that are running
)

// A sideListener serves HTTP for operators or applications, on an address of its own. It is used
// in this order: listen, start, stop.
type sideListener struct {
	option  string // the option that has the address
	address string
	server  *http.Server
	log     *slog.Logger
	cancel  context.CancelFunc // ends the contexts of the requests; stop calls it
	ln      net.Listener       // set by listen
	ended   chan struct{}      // closed when serving has ended
}

func newSideListener(option, address string, h http.Handler, log *slog.Logger) *sideListener {
	ctx, cancel := context.WithCancel(context.Background())
	return &sideListener{option: option, address: address, log: log, cancel: cancel, ended: make(chan struct{}), server: &http.Server{
		Handler: h, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: sideHeaderTimeout, ReadTimeout: sideReadTimeout, IdleTimeout: sideIdleTimeout, MaxHeaderBytes: sideHeaderBytes,
		// Clients can cause these lines.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

func (l *sideListener) listen() error {
	var err error
	l.ln, err = listenTCP(l.address, l.option)
	return err
}

// url returns the address. Call it after listen.
func (l *sideListener) url() string { return "http://" + l.ln.Addr().String() + "/" }

// start begins to serve, and returns at once. public is a warning for an address that other
// machines can reach.
func (l *sideListener) start(public string) {
	if tcp, ok := l.ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		l.log.Warn(public, "option", l.option, "address", l.ln.Addr().String())
	}
	// Ends with stop, which waits for it, or if accepting connections fails.
	go func() {
		defer close(l.ended)
		if err := l.server.Serve(l.ln); !errors.Is(err, http.ErrServerClosed) {
			l.log.Error("serving "+l.option+" failed", "error", err)
		}
	}()
}

// stop waits a moment for the requests that are running, ends the others, and closes the listener.
func (l *sideListener) stop() {
	defer l.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), sideCloseTimeout)
	defer cancel()
	if err := l.server.Shutdown(ctx); err != nil {
		l.log.Warn("requests were cut off", "option", l.option)
		l.server.Close()
	}
	<-l.ended
}

// listenTCP binds an address. option is the option that has it, for errors.
func listenTCP(address, option string) (net.Listener, error) {
	ln, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the port is in use by another program: stop that program, or choose another port with --%s", address, option)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: permission denied: choose a port above 1023 with --%s", address, option)
	case err != nil:
		return nil, fmt.Errorf("listen on %s (set by --%s): %w", address, option, err)
	}
	return ln, nil
}
