package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/hearthws/hearth/broker"
)

// TestReasonOf checks errors that a test cannot get from a Redis at will.
func TestReasonOf(t *testing.T) {
	t.Parallel()
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, "unreachable"},
		{dial(syscall.EHOSTUNREACH), "unreachable"},
		{dial(syscall.ENETUNREACH), "unreachable"},
		{dial(syscall.ETIMEDOUT), "timeout"},
		{dial(syscall.EACCES), "permission"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, "tls"},
		{joinErrors([]error{errNoMaster, errNoMaster}), "no-master"},
		{joinErrors([]error{dial(syscall.ECONNREFUSED), errReplica}), "replica"},
		{fmt.Errorf("%w: %w", broker.ErrDown, lostConnection(nil)), "closed"},
		{fmt.Errorf("%w: %w", errProbeLost, context.DeadlineExceeded), "no-echo"},
		{errOtherMaster, "replica"},
		{errSubscribing, "subscribing"},
		{errTooOld, "other"},
	} {
		if got := reasonOf(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
