//go:build !unix

package cli

import "errors"

var errNoSignals = errors.New("this system has no SIGHUP: restart the server instead")

// writePIDFile fails, unless the name is empty: without signals the file would have no use.
func writePIDFile(name string) (remove func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	return nil, errNoSignals
}

// signalServer fails.
func signalServer(string) (int, error) { return 0, errNoSignals }
