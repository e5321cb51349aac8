package archtest_test

import (
	"go/ast"
	"maps"
	"slices"
	"testing"
)

// A type with more methods or fields than this does too much for one reader. Move a part that
// stands alone to a type of its own.
const (
	maxMethods = 40
	maxFields  = 25
)

// wideStructs may have more than maxFields fields. Settings, counters and figures are lists,
// which no code has to understand as a whole. The others are to be split; their limits may only
// fall.
var wideStructs = map[string]int{
	"..Config":               40, // settings
	"..Stats":                50, // counters
	"broker/redis.Config":    30, // settings
	"internal/app.Config":    50, // settings
	"internal/node.Config":   40, // settings
	"internal/session.Stats": 40, // counters
	"bench.reading":          40, // figures

	"broker/redis.subscription":     27,
	"internal/transport/epoll.loop": 28,
}

// TestBudget checks the numbers of methods and fields of all types outside tests.
func TestBudget(t *testing.T) {
	t.Parallel()
	methods, fields := map[string]int{}, map[string]int{}
	for _, f := range source(t).files {
		if f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv != nil {
					methods[f.folder+"."+receiver(n.Recv.List[0].Type)]++
				}
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok {
					fields[f.folder+"."+n.Name.Name] = countFields(s)
				}
			}
			return true
		})
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		if n := methods[name]; n > maxMethods {
			t.Errorf("%s has %d methods, limit %d", name, n, maxMethods)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if n, limit := fields[name], max(maxFields, wideStructs[name]); n > limit {
			t.Errorf("%s has %d fields, limit %d", name, n, limit)
		}
	}
}

// receiver returns the name of a method's type, without pointer and type parameters.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// countFields returns the number of fields of a struct, where `a, b int` are two.
func countFields(s *ast.StructType) (n int) {
	for _, field := range s.Fields.List {
		n += max(1, len(field.Names))
	}
	return n
}
