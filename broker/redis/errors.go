package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/hearthws/hearth/internal/resp"
)

// The words of Health.Reason. The package comment explains them. They do not change, because alerts
// use them. Of several reasons, as for the nodes of a Cluster, the first in this list counts: those
// that retrying cannot fix before those that may pass.
const (
	reasonAuth        = "auth"
	reasonPermission  = "permission"
	reasonTLS         = "tls"
	reasonDatabase    = "database"
	reasonWrongServer = "wrong-server"
	reasonMaxClients  = "max-clients"
	reasonMisconf     = "misconf"
	reasonOOM         = "oom"
	reasonLoading     = "loading"
	reasonBusy        = "busy"
	reasonClusterDown = "cluster-down"
	reasonReplica     = "replica"
	reasonNoMaster    = "no-master"
	reasonNoEcho      = "no-echo"
	reasonUnreachable = "unreachable"
	reasonTimeout     = "timeout"
	reasonRefused     = "refused"
	reasonClosed      = "closed"
	reasonSubscribing = "subscribing"
	reasonOther       = "other"
)

// A cause lists the errors of a reason.
type cause struct {
	reason  string
	replies []string // beginnings of error replies
	targets []error
	match   func(error) bool
}

// causes are in the order in which they are looked for.
var causes = []cause{
	{reason: reasonAuth, replies: []string{"WRONGPASS", "NOAUTH"}},
	{reason: reasonPermission, replies: []string{"NOPERM"}, targets: []error{os.ErrPermission}},
	{reason: reasonTLS, match: isTLS},
	{reason: reasonDatabase, replies: []string{"ERR DB index is out of range", "ERR SELECT is not allowed in cluster mode"}},
	{reason: reasonWrongServer, targets: []error{errSentinel, resp.ErrProtocol, errOldRedis, errNoCluster}},
	{reason: reasonMaxClients, replies: []string{"ERR max number of clients"}},
	{reason: reasonMisconf, replies: []string{"MISCONF"}},
	{reason: reasonOOM, replies: []string{"OOM"}},
	{reason: reasonLoading, replies: []string{"LOADING"}},
	{reason: reasonBusy, replies: []string{"BUSY"}},
	{reason: reasonClusterDown, replies: []string{"CLUSTERDOWN"}},
	{reason: reasonReplica, replies: []string{"MASTERDOWN"}, targets: []error{errReplica, errOtherMaster}},
	{reason: reasonNoMaster, targets: []error{errNoMaster}},
	{reason: reasonNoEcho, targets: []error{errProbeLost}},
	{reason: reasonUnreachable, targets: []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH}, match: isDNS},
	{reason: reasonTimeout, targets: []error{context.DeadlineExceeded, os.ErrDeadlineExceeded}, match: isTimeout},
	// A Unix socket without a server does not exist.
	{reason: reasonRefused, targets: []error{syscall.ECONNREFUSED, os.ErrNotExist}},
	{reason: reasonClosed, targets: []error{errConnection, net.ErrClosed, io.EOF, syscall.ECONNRESET, syscall.EPIPE}},
	{reason: reasonSubscribing, targets: []error{errSubscribing}},
}

// reasonOf returns the word for an error, and an empty one for nil.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range causes {
		if c.matches(err) {
			return c.reason
		}
	}
	return reasonOther
}

// matches looks at all errors that err wraps.
func (c *cause) matches(err error) bool {
	for _, target := range c.targets {
		if errors.Is(err, target) {
			return true
		}
	}
	if c.match != nil && c.match(err) {
		return true
	}
	var cleaned *redactedError
	if errors.As(err, &cleaned) && cleaned.reason == c.reason {
		return true
	}
	for _, said := range errorReplies(err) {
		for _, told := range c.replies {
			if strings.HasPrefix(said, told) {
				return true
			}
		}
	}
	return false
}

// errorReplies returns the error replies of all servers that err wraps. errors.As would find only
// the first.
func errorReplies(err error) []string {
	switch e := err.(type) {
	case resp.Error:
		return []string{e.Error()}
	case interface{ Unwrap() error }:
		return errorReplies(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []string
		for _, err := range e.Unwrap() {
			all = append(all, errorReplies(err)...)
		}
		return all
	}
	return nil
}

// isTLS reports whether an error is of TLS.
func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError // crypto/tls returns an alert as one
	return errors.As(err, &record) || errors.As(err, &certificate) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
}

// isDNS reports whether an error is of a name lookup.
func isDNS(err error) bool {
	var name *net.DNSError
	return errors.As(err, &name)
}

// isTimeout reports whether an error is a timeout.
func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// A permanentError is one that retrying cannot fix, with a hint what to do.
type permanentError struct {
	err  error
	hint string
}

func (e *permanentError) Error() string { return e.err.Error() + " (" + e.hint + ")" }
func (e *permanentError) Unwrap() error { return e.err }

// explain adds hints and removes secrets, because a server may quote what it received.
func (d *dialer) explain(err error) error {
	hint := hintFor(err)
	err = d.redact(err)
	if hint != "" {
		return &permanentError{err, hint}
	}
	return err
}

// redact replaces the passwords in the text of an error.
func (d *dialer) redact(err error) error {
	text := err.Error()
	for _, secret := range d.secrets {
		if len(secret) > 2 && strings.Contains(text, secret) {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	if text == err.Error() {
		return err
	}
	return &redactedError{text, reasonOf(err)}
}

// A redactedError replaces an error that contained a secret. It wraps nothing.
type redactedError struct{ text, reason string }

func (e *redactedError) Error() string { return e.text }

// hints are for error replies that stay until a setting is changed, by their beginnings.
var hints = []struct{ prefix, hint string }{
	{"WRONGPASS", "check Username and Password"},
	{"NOAUTH", "this Redis requires a Password"},
	{"NOPERM", "the user needs +publish, +subscribe, +psubscribe, +unsubscribe, +hello, +cluster, +select if a DB is set, the channels ws:* and hearth:*, and with Patterns exactly ws:room:*, ws:client:* and ws:user:*, each with the Prefix if there is one; with History also the keys hearth:* and +info, +eval, +evalsha, +time, +get, +set, +del, +hmget, +hset, +rpush, +lpop, +ltrim, +lindex, +llen, +lrange, +pexpire, and +asking in a Cluster"},
	{"ERR DB index is out of range", "there is no such DB"},
	{"ERR SELECT is not allowed in cluster mode", "a Cluster has database 0 only"},
}

// hintFor returns an empty hint for errors that may pass.
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
		return "the server does not speak TLS; use redis:// instead of rediss://"
	case errors.As(err, &certificate):
		return "its certificate is not trusted; set an authority in Config.TLS"
	case errors.Is(err, errSentinel):
		return "set the name of its master: Config.Sentinel.MasterSet, or master_set in a URL"
	case errors.Is(err, resp.ErrProtocol):
		return "check the address, and whether the server requires TLS"
	case errors.Is(err, errOldRedis), errors.Is(err, errNoCluster):
		return "check the address"
	}
	return ""
}

// withHint adds the likely reason to the error of a server that does not answer HELLO, or closes
// the connection. The server may as well be busy, or about to end.
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
		return fmt.Errorf("the server closed the connection (does it require a client certificate?): %w", err)
	case closed:
		return fmt.Errorf("the server closed the connection (does it require TLS?): %w", err)
	}
	return err
}

// isPermanent reports whether retrying cannot fix an error.
func isPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}
