package archtest_test

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// TestTimeIsMonotonic finds times that are converted to numbers, or lose their monotonic reading.
// Values computed from them change when the wall clock is set. Timeouts use internal/clock; other
// durations are differences of time.Time. Tickets, tokens and webhooks are exempt: they have times
// for another machine, or of one.
func TestTimeIsMonotonic(t *testing.T) {
	t.Parallel()
	wall := []string{"Unix", "UnixMilli", "UnixMicro", "UnixNano"}
	exempt := []string{"internal/ticket/ticket.go", "internal/app/jwtauth/claims.go", "internal/app/webhook/webhook.go"}
	all := source(t)
	for _, f := range all.files {
		if f.test || slices.Contains(exempt, f.name) || strings.HasPrefix(f.folder, "internal/test/") || strings.HasPrefix(f.folder, "bench") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if s, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains(wall, s.Sel.Name) {
				t.Errorf("%s: %s is a reading of the wall clock; keep a time.Time, or a clock.Instant", all.position(call), s.Sel.Name)
			}
			return true
		})
	}
}
