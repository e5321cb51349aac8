package archtest_test

import (
	"go/ast"
	"strings"
	"testing"
)

// TestPublicTypes checks that exported types of public packages are not aliases of internal types,
// because go doc shows neither fields nor methods of those. Each exported field must have its own
// comment, which editors show.
func TestPublicTypes(t *testing.T) {
	t.Parallel()
	all := source(t)
	types := 0
	for _, f := range all.files {
		if f.test || f.main() || strings.Contains(f.folder+"/", "internal/") || strings.HasPrefix(f.folder, "bench") || strings.HasPrefix(f.folder, "examples") {
			continue
		}
		internal := map[string]bool{} // names under which f knows internal packages
		for _, spec := range f.syntax.Imports {
			if p := strings.Trim(spec.Path.Value, `"`); strings.Contains(p, "/internal/") {
				internal[p[strings.LastIndex(p, "/")+1:]] = true
			}
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() {
				return true
			}
			types++
			if sel, ok := spec.Type.(*ast.SelectorExpr); ok && spec.Assign.IsValid() {
				if pkg, ok := sel.X.(*ast.Ident); ok && internal[pkg.Name] {
					t.Errorf("%s: %s is an alias of the internal %s.%s; define it, and convert where it comes in",
						all.position(n), spec.Name.Name, pkg.Name, sel.Sel.Name)
				}
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					if len(field.Names) > 0 && field.Names[0].IsExported() && field.Doc == nil && field.Comment == nil {
						t.Errorf("%s: %s.%s has no comment", all.position(field), spec.Name.Name, field.Names[0].Name)
					}
				}
			}
			return true
		})
	}
	if types < 40 {
		t.Errorf("only %d public types were found", types)
	}
}
