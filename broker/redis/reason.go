package redis

import (
	"context"
	"crypto/tls"
	"errors"
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
	reason string
	told   []string // beginnings of what Redis says
	is     []error
	like   func(error) bool
}

// causes are in the order in which they are looked for.
var causes = []cause{
	{reason: reasonAuth, told: []string{"WRONGPASS", "NOAUTH"}},
	{reason: reasonPermission, told: []string{"NOPERM"}, is: []error{os.ErrPermission}},
	{reason: reasonTLS, like: ofTLS},
	{reason: reasonDatabase, told: []string{"ERR DB index is out of range", "ERR SELECT is not allowed in cluster mode"}},
	{reason: reasonWrongServer, is: []error{errSentinel, resp.ErrProtocol, errOldRedis, errNoCluster}},
	{reason: reasonMaxClients, told: []string{"ERR max number of clients"}},
	{reason: reasonMisconf, told: []string{"MISCONF"}},
	{reason: reasonOOM, told: []string{"OOM"}},
	{reason: reasonLoading, told: []string{"LOADING"}},
	{reason: reasonBusy, told: []string{"BUSY"}},
	{reason: reasonClusterDown, told: []string{"CLUSTERDOWN"}},
	{reason: reasonReplica, told: []string{"MASTERDOWN"}, is: []error{errReplica, errOther}},
	{reason: reasonNoMaster, is: []error{errNoMaster}},
	{reason: reasonNoEcho, is: []error{errProbe}},
	{reason: reasonUnreachable, is: []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH}, like: ofNames},
	{reason: reasonTimeout, is: []error{context.DeadlineExceeded, os.ErrDeadlineExceeded}, like: late},
	{reason: reasonRefused, is: []error{syscall.ECONNREFUSED, os.ErrNotExist}}, // of a socket in the file system, its name
	{reason: reasonClosed, is: []error{errConnection, net.ErrClosed, io.EOF, syscall.ECONNRESET, syscall.EPIPE}},
	{reason: reasonSubscribing, is: []error{errSubscribing}},
}

// reasonOf is the word for an error; empty for none.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range causes {
		if c.of(err) {
			return c.reason
		}
	}
	return reasonOther
}

// of looks through all that err wraps.
func (c *cause) of(err error) bool {
	for _, target := range c.is {
		if errors.Is(err, target) {
			return true
		}
	}
	if c.like != nil && c.like(err) {
		return true
	}
	var cleaned *cleanedError
	if errors.As(err, &cleaned) && cleaned.reason == c.reason {
		return true
	}
	for _, said := range allSaid(err) {
		for _, told := range c.told {
			if strings.HasPrefix(said, told) {
				return true
			}
		}
	}
	return false
}

// allSaid is what the servers have answered, of all that err wraps: errors.As would find the first only.
func allSaid(err error) []string {
	switch e := err.(type) {
	case resp.Error:
		return []string{e.Error()}
	case interface{ Unwrap() error }:
		return allSaid(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []string
		for _, err := range e.Unwrap() {
			all = append(all, allSaid(err)...)
		}
		return all
	}
	return nil
}

func ofTLS(err error) bool {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError // that is what crypto/tls makes of one
	return errors.As(err, &record) || errors.As(err, &certificate) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
}

func ofNames(err error) bool {
	var name *net.DNSError
	return errors.As(err, &name)
}

func late(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
