package callback

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// A PanicError is the panic of a callback, as an error.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine, for the log
}

func (p *PanicError) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// errExit is the error of a callback that called runtime.Goexit.
var errExit = errors.New("callback ended its goroutine (runtime.Goexit)")

// Run calls f, a function of the application, and passes its error to failed. It passes a panic of
// f as a *PanicError. It also passes an error if f calls runtime.Goexit, as a failing test does;
// then Run does not return, and the goroutine runs only the deferred calls of its callers. Run
// reports whether f returned nil.
func Run(f func() error, failed func(error)) (ok bool) {
	returned := false
	defer func() {
		if v := recover(); v != nil {
			failed(&PanicError{v, debug.Stack()})
		} else if !returned {
			failed(errExit)
		}
	}()
	err := Call(f)
	returned = true
	if err != nil {
		failed(err)
	}
	return err == nil
}
