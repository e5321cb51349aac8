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

// The words of Health.Reason, which the package's comment explains. Somebody's alerts know them: they do not change. Where there are
// several reasons, as for the nodes of a Cluster, it is the one that stands first here: what waiting does not mend before what it may.
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

// A cause says which errors a reason is for.
type cause struct {
	reason  string
	replies []string // beginnings of what Redis says
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
	{reason: reasonRefused, targets: []error{syscall.ECONNREFUSED, os.ErrNotExist}}, // of a socket in the file system, its name
	{reason: reasonClosed, targets: []error{errConnection, net.ErrClosed, io.EOF, syscall.ECONNRESET, syscall.EPIPE}},
	{reason: reasonSubscribing, targets: []error{errSubscribing}},
}

// reasonOf is the word for an error; empty for none.
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

// of looks through all that err wraps.
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

// allSaid is what the servers have answered, of all that err wraps: errors.As would find the first only.
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

func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError // that is what crypto/tls makes of one
	return errors.As(err, &record) || errors.As(err, &certificate) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
}

func isDNS(err error) bool {
	var name *net.DNSError
	return errors.As(err, &name)
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

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
	err = d.redact(err)
	if hint != "" {
		return &permanentError{err, hint}
	}
	return err
}

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

// A cleanedError is what is left of one with a secret in it: it wraps nothing.
type redactedError struct{ text, reason string }

func (e *redactedError) Error() string { return e.text }

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
