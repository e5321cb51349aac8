package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/hearthws/hearth/internal/resp"
)

// A permanentError is one that no waiting mends, with what to do about it.
type permanentError struct {
	err  error
	hint string
}

func (e *permanentError) Error() string { return e.err.Error() + " (" + e.hint + ")" }
func (e *permanentError) Unwrap() error { return e.err }

// explain adds hints, and takes out secrets: a server may quote what it was sent.
func (d *dialer) explain(err error) error {
	hint := hintFor(err)
	err = d.clean(err)
	if hint != "" {
		return &permanentError{err, hint}
	}
	return err
}

func (d *dialer) clean(err error) error {
	text := err.Error()
	for _, secret := range d.secrets {
		if len(secret) > 2 && strings.Contains(text, secret) {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	if text == err.Error() {
		return err
	}
	return &cleanedError{text, reasonOf(err)}
}

// A cleanedError is what is left of one with a secret in it: it wraps nothing.
type cleanedError struct{ text, reason string }

func (e *cleanedError) Error() string { return e.text }

// hints are for the error replies of Redis that stay until a setting is changed, by their beginnings.
var hints = []struct{ prefix, hint string }{
	{"WRONGPASS", "check Username and Password"},
	{"NOAUTH", "this Redis wants a Password"},
	{"NOPERM", "the user needs +publish, +subscribe, +psubscribe, +unsubscribe, +punsubscribe, +ping, +hello, +cluster, +select if a DB is given, the channels ws:* and hearth:*, and with Patterns ws:room:*, ws:client:* and ws:user:* word for word, all behind Prefix if there is one"},
	{"ERR DB index is out of range", "there is no such DB"},
	{"ERR SELECT is not allowed in cluster mode", "a Cluster has database 0 only"},
}

// hintFor is empty for errors that may pass.
func hintFor(err error) string {
	var reply resp.Error
	if errors.As(err, &reply) {
		for _, h := range hints {
			if strings.HasPrefix(string(reply), h.prefix) {
				return h.hint
			}
		}
	}
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &record):
		return "no TLS is spoken there: redis:// instead of rediss://?"
	case errors.As(err, &certificate):
		return "its certificate is not trusted: Config.TLS may name an authority"
	case errors.Is(err, errSentinel):
		return "name its master: Config.Sentinel.MasterSet, or master_set in a URL"
	case errors.Is(err, resp.ErrProtocol):
		return "check the address, and whether TLS is spoken there"
	case errors.Is(err, errOldRedis), errors.Is(err, errNoCluster):
		return "check the address"
	}
	return ""
}

// withHint adds the likely reason to the error of a server that does not answer HELLO, or closes the
// connection. The server may as well be busy, or about to end.
func (d *dialer) withHint(err error) error {
	var timeout net.Error
	late := errors.As(err, &timeout) && timeout.Timeout()
	closed := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	secure := d.config.TLS != nil
	switch {
	case late && secure:
		return fmt.Errorf("no answer (does it speak TLS?): %w", err)
	case late:
		return fmt.Errorf("no answer: %w", err)
	case closed && secure:
		return fmt.Errorf("it hung up (does it want a certificate of the client?): %w", err)
	case closed:
		return fmt.Errorf("it hung up (does it want TLS?): %w", err)
	}
	return err
}

func isPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}
