package node

import (
	"log"
	"log/slog"
	"strings"
)

// httpErrorLog returns the ErrorLog of an http.Server. The panics of handlers are faults of the
// application and are logged as errors. Clients cause nearly all other lines, so those have the
// level DEBUG.
func httpErrorLog(l *slog.Logger) *log.Logger { return log.New(httpErrors{l}, "", 0) }

// httpErrors is the io.Writer of an http.Server's ErrorLog. Any goroutine.
type httpErrors struct {
	log *slog.Logger // read-only
}

// Write logs one message of net/http. It does not fail.
func (h httpErrors) Write(message []byte) (int, error) {
	text := strings.TrimSuffix(string(message), "\n")
	for _, prefix := range []string{"http: panic serving ", "http2: panic serving "} {
		if what, ok := strings.CutPrefix(text, prefix); ok {
			what, stack, _ := strings.Cut(what, "\n") // what is "address: value"
			addr, value, _ := strings.Cut(what, ": ")
			h.log.Error("HTTP handler panicked", "error", "panic: "+value, "address", addr, "stack", stack)
			return len(message), nil
		}
	}
	h.log.Debug(text)
	return len(message), nil
}
