// Package callback calls the application's functions. Call marks the calls, so that a method that
// waits for them can reject a call from one of them. Run turns their panics into errors. Go
// survives a function that ends its goroutine.
package callback

import (
	"reflect"
	"runtime"
)

// Call calls f, a function of the application that a shutdown waits for.
//
//go:noinline
func Call(f func() error) error { return f() }

// Within reports whether this goroutine is inside a Call. It walks the stack, so do not call it
// often.
func Within() bool {
	entry := reflect.ValueOf(Call).Pointer()
	pcs := make([]uintptr, 64)
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		if n == 0 {
			return false
		}
		frames := runtime.CallersFrames(pcs[:n])
		for more := true; more; {
			var frame runtime.Frame
			if frame, more = frames.Next(); frame.Entry == entry {
				return true
			}
		}
	}
}
