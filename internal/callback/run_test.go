package callback_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/hearthws/hearth/internal/callback"
)

func TestRun(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	tests := map[string]struct {
		f        func() error
		ok       bool
		returns  bool
		panicked bool
	}{
		"success": {f: func() error { return nil }, ok: true, returns: true},
		"error":   {f: func() error { return cause }, returns: true},
		"panic":   {f: func() error { panic(cause) }, returns: true, panicked: true},
		"Goexit":  {f: func() error { runtime.Goexit(); return nil }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var failure error
			ok, returned := false, false
			ended := make(chan struct{})
			go func() { // ends with f
				defer close(ended)
				ok = callback.Run(test.f, func(err error) { failure = err })
				returned = true
			}()
			<-ended
			if ok != test.ok || returned != test.returns || (failure == nil) != test.ok {
				t.Errorf("ok %v, returned %v, error %v", ok, returned, failure)
			}
			var p *callback.PanicError
			if errors.As(failure, &p) != test.panicked || p != nil && (p.Value != cause || len(p.Stack) == 0) {
				t.Errorf("error %#v", failure)
			}
		})
	}
}
