package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/hearthws/hearth"

// root is the folder of the module.
const root = "../.."

// A file is one parsed Go file.
type file struct {
	name   string // from the module's root, with slashes
	folder string // the same; "." is the root itself
	test   bool
	syntax *ast.File
}

// imports returns the paths that f imports. Those of this project are relative to the root:
// "protocol", "." for the root itself.
func (f *file) imports() (own, others []string) {
	for _, spec := range f.syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has checked it
		}
		switch rest, found := strings.CutPrefix(p, module); {
		case found && rest == "":
			own = append(own, ".")
		case found && rest[0] == '/':
			own = append(own, rest[1:])
		case strings.Contains(strings.SplitN(p, "/", 2)[0], "."):
			others = append(others, p)
		}
	}
	return own, others
}

// main reports whether f is part of a command.
func (f *file) main() bool { return f.syntax.Name.Name == "main" }

// A tree has all Go files of the repository, including those of the module bench.
type tree struct {
	fset  *token.FileSet
	files []*file
}

// position returns the position of n, for messages.
func (t *tree) position(n ast.Node) string {
	p := t.fset.Position(n.Pos())
	rel, err := filepath.Rel(root, p.Filename)
	if err != nil {
		rel = p.Filename
	}
	return filepath.ToSlash(rel) + ":" + strconv.Itoa(p.Line)
}

// folders returns the folders with Go files, sorted.
func (t *tree) folders() []string {
	var names []string
	for _, f := range t.files {
		names = append(names, f.folder)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// in returns the files of one folder.
func (t *tree) in(folder string) []*file {
	var files []*file
	for _, f := range t.files {
		if f.folder == folder {
			files = append(files, f)
		}
	}
	return files
}

var parseOnce = sync.OnceValues(parse)

// source parses the repository, once for all tests.
func source(t *testing.T) *tree {
	t.Helper()
	all, err := parseOnce()
	if err != nil {
		t.Fatalf("parse the repository: %v", err)
	}
	return all
}

func parse() (*tree, error) {
	all := &tree{fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != root && (base[0] == '.' || base[0] == '_' || base == "testdata" || base == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(all.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		all.files = append(all.files, &file{
			name: rel, folder: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"), syntax: syntax,
		})
		return nil
	})
	return all, err
}
