package cli

import (
	"fmt"
	"net"
	"strings"
)

// A notifier tells the service manager about the state of the process (sd_notify of systemd, for
// units of Type=notify). It is the address of a socket, and empty if there is no such manager.
type notifier string

// notifierOf returns the notifier of an environment in the format of os.Environ.
func notifierOf(environ []string) notifier {
	for _, kv := range environ {
		if address, ok := strings.CutPrefix(kv, "NOTIFY_SOCKET="); ok {
			return notifier(address)
		}
	}
	return ""
}

// The states of a service.
const (
	stateReady    = "READY=1"
	stateStopping = "STOPPING=1"
)

// send sends a state. It does not wait for the service manager.
func (n notifier) send(state string) error {
	if n == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", string(n)) // a leading @ is an abstract socket, as in systemd
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
