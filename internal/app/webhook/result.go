package webhook

import (
	"context"
	"errors"
)

// A Result is what became of a request.
type Result int

// The results.
const (
	Accepted    Result = iota
	Rejected           // the backend rejects the client: 401 or 403
	Unreachable        // no connection, or it broke
	Timeout            // no answer in time
	Busy               // too many requests were in progress
	BadAnswer          // another status, or a body that is not valid

	results
)

// String returns the result as one word for logs and metrics.
func (r Result) String() string {
	names := [results]string{"accepted", "rejected", "unreachable", "timeout", "busy", "bad_answer"}
	if r < 0 || r >= results {
		return "unknown"
	}
	return names[r]
}

// ResultOf returns the result of an error of Authenticate, and Accepted for nil.
func ResultOf(err error) Result {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Result
	}
	return Accepted
}

// Results returns all results.
func Results() []Result {
	all := make([]Result, results)
	for i := range all {
		all[i] = Result(i)
	}
	return all
}

// An Error says why a client was not accepted. Unless its Result is Rejected, the backend could not
// be asked, or its answer could not be used.
type Error struct {
	Result Result
	err    error
}

func (e *Error) Error() string { return "webhook: " + e.Result.String() + ": " + e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

var (
	errRejected    = errors.New("the backend rejected the client")
	errUnreachable = errors.New("the backend did not answer")
	errBusy        = errors.New("too many requests")
	errAnswer      = errors.New("the answer of the backend cannot be used")
)

// resultOf returns the result of an error.
func resultOf(err error) Result {
	switch {
	case errors.Is(err, errRejected):
		return Rejected
	case errors.Is(err, errBusy):
		return Busy
	case errors.Is(err, errAnswer):
		return BadAnswer
	case timedOut(err):
		return Timeout
	}
	return Unreachable
}

// timedOut reports whether err is a timeout, of the context or of the HTTP client.
func timedOut(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && t.Timeout()
}
