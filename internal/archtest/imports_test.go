package archtest_test

import (
	"slices"
	"strings"
	"testing"
)

// A rule says what the package in one folder may import.
type rule struct {
	folder    string   // from the root; a last element * matches any folder below, at any depth
	imports   []string // packages of this project
	libraries []string // modules of others; tests may import any
	anyTest   bool     // any test may import it
}

// rules lists all allowed imports. A package imports only packages above it, so the list goes from
// the leaves to the commands. docs/architecture.md has the same order.
//
// Tests may import the packages that their package can reach, and those with anyTest: the leaves
// and the suites.
var rules = []rule{
	// The leaves: the contract, and packages without I/O.
	{folder: "protocol", anyTest: true},
	{folder: "seal", anyTest: true},
	{folder: "broker", anyTest: true, imports: []string{"protocol"}},
	{folder: "internal/ws", anyTest: true, libraries: []string{"github.com/klauspost/compress"}},
	{folder: "internal/callback"},
	{folder: "internal/clock", anyTest: true},
	{folder: "internal/fifo"},
	{folder: "internal/workpool", imports: []string{"internal/callback", "internal/fifo"}},
	{folder: "internal/shrinkmap"},
	{folder: "internal/ratelog"},
	{folder: "internal/origin"},
	{folder: "internal/ticket"},
	{folder: "internal/resp", imports: []string{"internal/fifo"}},

	// Packages that carry messages to other nodes. They do not know each other, nor the packages
	// that use them.
	{folder: "broker/brokertest", imports: []string{"broker", "protocol"}, anyTest: true,
		libraries: []string{"github.com/google/go-cmp", "go.uber.org/goleak"}},
	{folder: "broker/memory", anyTest: true, imports: []string{"broker", "internal/fifo", "internal/shrinkmap", "protocol"}},
	{folder: "broker/redis", imports: []string{"broker", "internal/fifo", "internal/ratelog", "internal/resp", "internal/shrinkmap", "protocol"},
		libraries: []string{"golang.org/x/sys"}},

	// For programs that send and have no clients. It may import as much as a broker, and no
	// particular broker.
	{folder: "emitter", imports: []string{"broker", "protocol"}},

	// Only sockets.
	{folder: "internal/transport", imports: []string{"internal/clock"}},
	{folder: "internal/transport/transporttest", imports: []string{"internal/clock", "internal/transport"}, anyTest: true},
	{folder: "internal/transport/outqueue", imports: []string{"internal/clock", "internal/fifo"}},
	{folder: "internal/transport/epoll", imports: []string{"internal/clock", "internal/transport", "internal/transport/outqueue"},
		libraries: []string{"golang.org/x/sys"}},
	{folder: "internal/transport/netconn", imports: []string{"internal/clock", "internal/transport", "internal/transport/outqueue"}},

	// The index of clients, and sessions. No sockets: a hub writes to links, a session gets bytes.
	{folder: "internal/hub", imports: []string{"internal/callback", "internal/fifo", "internal/shrinkmap", "internal/ws", "seal"}},
	{folder: "internal/cluster", imports: []string{"broker", "internal/clock", "internal/fifo", "protocol"}},
	{folder: "internal/history", imports: []string{"broker", "protocol"}},
	{folder: "internal/session", imports: []string{"internal/callback", "internal/clock", "internal/fifo", "internal/hub", "internal/history", "internal/ticket", "internal/transport", "internal/workpool", "internal/ws", "protocol", "seal"}},

	// One instance.
	{folder: "internal/node", imports: []string{"broker", "internal/callback", "internal/clock", "internal/cluster", "internal/fifo", "internal/hub", "internal/history", "internal/session", "internal/ratelog",
		"internal/ticket", "internal/transport", "internal/transport/epoll", "internal/transport/netconn", "internal/workpool", "internal/ws", "protocol"},
		libraries: []string{"github.com/google/uuid"}},

	// The library. A program that imports it compiles only the packages above this line.
	{folder: ".", imports: []string{"broker", "internal/cluster", "internal/hub", "internal/node", "internal/origin", "internal/session", "internal/ticket", "protocol", "seal"}},

	// For the unit tests of applications.
	{folder: "hearthtest", imports: []string{".", "protocol"}, libraries: []string{"github.com/coder/websocket"}},

	// For programs that are clients. It does not know the server.
	{folder: "client", imports: []string{"protocol", "seal"}, libraries: []string{"github.com/coder/websocket"}},

	// The tests of the whole server.
	{folder: "internal/e2e", imports: []string{".", "broker/redis", "client"}, anyTest: true},

	// The server binary uses the library like any other program: public packages, and leaves that
	// do not depend on it.
	{folder: "internal/app/identity", imports: []string{"protocol"}},
	{folder: "internal/app/rules", imports: []string{"internal/app/identity"}},
	{folder: "internal/app/fetch"},
	{folder: "internal/app/webhook", imports: []string{"internal/app/fetch", "internal/app/identity"}},
	{folder: "internal/app/jwtauth", imports: []string{"internal/app/fetch", "internal/app/identity", "protocol"}, libraries: []string{
		"github.com/MicahParks/jwkset", "github.com/MicahParks/keyfunc", "github.com/golang-jwt/jwt"}},
	{folder: "internal/app/metrics", imports: []string{".", "broker"}, libraries: []string{"github.com/prometheus/client_golang"}},
	{folder: "internal/app/api", imports: []string{".", "broker", "broker/redis", "emitter", "protocol"}, libraries: []string{"github.com/danielgtaylor/huma"}},
	{folder: "internal/app/admin", imports: []string{"internal/app/metrics"}, libraries: []string{"github.com/prometheus/client_golang"}},
	{folder: "internal/app", imports: []string{".", "broker", "broker/memory", "broker/redis", "emitter", "internal/app/admin", "internal/app/api", "internal/app/identity", "internal/app/jwtauth",
		"internal/app/fetch", "internal/app/metrics", "internal/app/rules", "internal/app/webhook", "internal/origin", "internal/ratelog", "protocol"}, libraries: []string{"github.com/knadh/koanf",
		"github.com/prometheus/client_golang", "go.yaml.in/yaml", "golang.org/x/term"}},
	{folder: "internal/emit", imports: []string{"broker", "broker/redis", "emitter", "protocol"}},
	{folder: "internal/cli", imports: []string{"internal/app", "internal/emit"}, libraries: []string{"github.com/spf13/cobra",
		"github.com/spf13/pflag", "golang.org/x/term"}},
	{folder: "cmd/hearth", imports: []string{"internal/cli"}},

	// Users, too. Examples show an application, so they may import only what an application can.
	{folder: "examples/*", imports: []string{".", "broker", "broker/memory", "broker/redis", "client", "emitter", "hearthtest", "protocol"}},
	{folder: "internal/test/reference", anyTest: true},
	{folder: "bench/*", imports: []string{".", "broker", "broker/memory", "broker/redis", "emitter", "internal/resp", "internal/test/reference", "seal"}},

	// Programs for tests, and this package.
	{folder: "internal/test/child", anyTest: true},
	{folder: "internal/test/port", anyTest: true},
	{folder: "internal/test/redistest", anyTest: true, imports: []string{"internal/resp", "internal/test/child", "internal/test/port"}},
	{folder: "internal/test/interop", imports: []string{".", "broker/redis", "emitter", "internal/test/redistest", "internal/test/reference"}},
	{folder: "internal/test/clocks", anyTest: true},
	{folder: "internal/test/clocks/server", imports: []string{"."}},
	{folder: "internal/test/behaviour", imports: []string{".", "broker/memory"}, anyTest: true},
	{folder: "internal/test/behaviour/serve", imports: []string{"internal/test/behaviour"}},
	{folder: "internal/test/*", imports: []string{"internal/clock", "internal/ws", "internal/transport", "internal/transport/epoll", "internal/transport/netconn"}},
	{folder: "internal/archtest"},
}

const importHelp = `An import ties two packages together: one can no longer be read, tested or changed without the other.
If there is no alternative (a value passed in by the caller, an interface on the side that uses it), add it to
rules in internal/archtest/imports_test.go, and give the reason in the commit message.`

// TestImports fails for an import that no rule allows, and for a package without a rule.
func TestImports(t *testing.T) {
	t.Parallel()
	all := source(t)
	for _, folder := range all.folders() {
		r, known := ruleOf(folder)
		if !known {
			t.Errorf("package %s is not in the table: give it a rule, in the place where it belongs between the leaves and the commands.\n%s",
				folder, importHelp)
			continue
		}
		for _, f := range all.in(folder) {
			own, others := f.imports()
			for _, imported := range own {
				if !r.allows(folder, imported, f.test) {
					t.Errorf("%s imports %s, which %s may not.\n%s", f.name, imported, folder, importHelp)
				}
			}
			for _, imported := range others {
				if !f.test && !inModules(imported, r.libraries) && !strings.HasPrefix(folder, "bench") {
					t.Errorf("%s imports %s, which is not among the libraries of %s.\n%s", f.name, imported, folder, importHelp)
				}
			}
		}
	}
}

// TestImportRules checks that the rules allow only imports of packages above, and that each has a
// package.
func TestImportRules(t *testing.T) {
	t.Parallel()
	all := source(t)
	for i, r := range rules {
		for _, imported := range r.imports {
			if at := slices.IndexFunc(rules, func(other rule) bool { return other.folder == imported }); at < 0 || at >= i {
				t.Errorf("%s may import %s, which does not stand above it", r.folder, imported)
			}
		}
		if strings.HasSuffix(r.folder, "/*") {
			continue
		}
		files := all.in(r.folder)
		if len(files) == 0 {
			t.Errorf("there is a rule for %s, and no such package", r.folder)
		}
	}
}

// TestLibraryDependencies checks which modules an application needs for the library. Adding one is
// a decision.
func TestLibraryDependencies(t *testing.T) {
	t.Parallel()
	var got []string
	for _, folder := range append(reachable("."), ".") {
		r, _ := ruleOf(folder)
		got = append(got, r.libraries...)
	}
	slices.Sort(got)
	want := []string{"github.com/google/uuid", "github.com/klauspost/compress", "golang.org/x/sys"}
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("the library needs %v, want %v", got, want)
	}
}

// ruleOf finds the rule of a folder. An exact rule takes precedence over one with *.
func ruleOf(folder string) (rule, bool) {
	for _, r := range rules {
		if r.folder == folder {
			return r, true
		}
	}
	for _, r := range rules {
		if dir, found := strings.CutSuffix(r.folder, "/*"); found && (folder == dir || strings.HasPrefix(folder, dir+"/")) {
			return r, true
		}
	}
	return rule{}, false
}

// allows reports whether a file in folder may import a package of this project.
func (r rule) allows(folder, imported string, test bool) bool {
	if slices.Contains(r.imports, imported) {
		return true
	}
	if inFamily := strings.HasSuffix(r.folder, "/*") && strings.HasPrefix(imported, strings.TrimSuffix(r.folder, "*")); inFamily {
		return true // parts of one program
	}
	if !test {
		return false
	}
	other, _ := ruleOf(imported)
	return other.anyTest || imported == folder || slices.Contains(reachable(folder), imported)
}

// reachable returns the direct and indirect imports of a package.
func reachable(folder string) []string {
	r, _ := ruleOf(folder)
	var all []string
	for _, imported := range r.imports {
		all = append(append(all, imported), reachable(imported)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// inModules reports whether a package belongs to one of the modules.
func inModules(imported string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool { return imported == m || strings.HasPrefix(imported, m+"/") })
}
