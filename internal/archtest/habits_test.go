package archtest_test

import (
	"go/ast"
	"strings"
	"testing"
)

// TestPackageComments checks that each package has a doc comment, in one file, that begins as godoc
// expects.
func TestPackageComments(t *testing.T) {
	t.Parallel()
	all := source(t)
	for _, folder := range all.folders() {
		docs, command, name := 0, false, ""
		for _, f := range all.in(folder) {
			if f.test {
				continue
			}
			name, command = f.syntax.Name.Name, f.main()
			if f.syntax.Doc == nil {
				continue
			}
			docs++
			begin := "Package " + name + " "
			if command {
				begin = "Command "
			}
			if text := f.syntax.Doc.Text(); !strings.HasPrefix(text, begin) {
				t.Errorf("%s: the package's comment should begin with %q", f.name, begin)
			}
		}
		if name != "" && docs != 1 {
			t.Errorf("%s has %d package comments, want one that says what it is for", folder, docs)
		}
	}
}

// TestNoInitFunctions finds init functions: importing a package must have no effect.
func TestNoInitFunctions(t *testing.T) {
	t.Parallel()
	all := source(t)
	for _, f := range all.files {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init function; make what it does part of a New, or of a table", all.position(fn))
			}
		}
	}
}

// TestNoProcessExit finds calls that end the process, or panic, outside main packages and tests.
// The caller must decide that.
func TestNoProcessExit(t *testing.T) {
	t.Parallel()
	all := source(t)
	for _, f := range all.files {
		if f.test || f.main() {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if name := callName(call); name == "panic" || name == "os.Exit" || strings.HasPrefix(name, "log.Fatal") || strings.HasPrefix(name, "log.Panic") {
				t.Errorf("%s: %s; return an error instead", all.position(call), name)
			}
			return true
		})
	}
}

// TestTestsDoNotSleep finds tests that sleep instead of waiting for an event. Such tests are slow
// when they pass, and fail when the machine is busy. testing/synctest has a fake clock; where it
// cannot be used, wait for an event.
func TestTestsDoNotSleep(t *testing.T) {
	t.Parallel()
	all := source(t)
	for _, f := range all.files {
		if suite := strings.HasSuffix(f.folder, "test"); !f.test && !suite {
			continue
		}
		bubble := false // within synctest.Test a sleep costs nothing
		for _, spec := range f.syntax.Imports {
			bubble = bubble || spec.Path.Value == `"testing/synctest"`
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && callName(call) == "time.Sleep" && !bubble {
				t.Errorf("%s: time.Sleep in a test", all.position(call))
			}
			return true
		})
	}
}

// callName returns the name of the called function, with its package or receiver; empty if it has
// none.
func callName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
	}
	return ""
}
