package archtest_test

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"testing"
)

// TestPackagesHaveNoState finds package variables that are changed: assigned to, or of a type that
// exists to be changed. Tables and sentinel errors are allowed, and so is a sync.Pool, which has no
// visible state.
func TestPackagesHaveNoState(t *testing.T) {
	t.Parallel()
	all := source(t)
	for _, folder := range all.folders() {
		var files []*ast.File
		for _, f := range all.in(folder) {
			if !f.test {
				files = append(files, f.syntax)
			}
		}
		found := findState(all.fset, files)
		for _, n := range slices.SortedFunc(maps.Keys(found), func(a, b ast.Node) int { return int(a.Pos() - b.Pos()) }) {
			t.Errorf("%s: the package's variable %s %s; make it a field of what uses it", all.position(n), found[n].name, found[n].what)
		}
	}
}

type finding struct{ name, what string }

// findState finds changes to the variables of one package.
func findState(fset *token.FileSet, files []*ast.File) map[ast.Node]finding {
	found := map[ast.Node]finding{}
	// Only the package's own names matter: imports may stay unresolved, and errors about them are
	// ignored.
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: emptyImporter{}, Error: func(error) {}}
	pkg, _ := conf.Check("p", fset, files, &info)

	global := func(e ast.Expr) (string, bool) {
		id := base(e)
		if id == nil || pkg == nil {
			return "", false
		}
		v, ok := info.Uses[id].(*types.Var)
		return id.Name, ok && v.Parent() == pkg.Scope()
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			var targets []ast.Expr
			switch n := n.(type) {
			case *ast.AssignStmt:
				targets = n.Lhs
			case *ast.IncDecStmt:
				targets = []ast.Expr{n.X}
			case *ast.CallExpr:
				if name := callName(n); (name == "delete" || name == "clear") && len(n.Args) > 0 {
					targets = n.Args[:1]
				}
			}
			for _, e := range targets {
				if name, ok := global(e); ok {
					found[n] = finding{name, "is changed"}
				}
			}
			return true
		})
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.VAR {
				mutableTypes(d, found)
			}
		}
	}
	return found
}

// mutableTypes finds variables whose types exist to be changed.
func mutableTypes(d *ast.GenDecl, found map[ast.Node]finding) {
	for _, spec := range d.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok {
			continue
		}
		sel, ok := v.Type.(*ast.SelectorExpr)
		if !ok {
			continue
		}
		if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "atomic" || x.Name == "sync" && sel.Sel.Name != "Pool") {
			found[v] = finding{v.Names[0].Name, "is of type " + x.Name + "." + sel.Sel.Name}
		}
	}
}

// base returns the variable that an expression is a part of: a in a.b[c].d.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// emptyImporter is an importer that finds no package.
type emptyImporter struct{}

func (emptyImporter) Import(string) (*types.Package, error) { return nil, errors.New("not looked at") }
