package archtest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPrograms checks that the programs in documents equal, byte for byte, examples that compile and
// have a test.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for document, example := range map[string]string{
		"README.md": "examples/hello/main.go", "docs/clients.md": "examples/terminal/main.go",
	} {
		_, code, found := strings.Cut(text(t, example), "\npackage main\n")
		want := "```go\npackage main\n" + strings.TrimRight(code, "\n") + "\n```\n"
		if !found || !strings.Contains(text(t, document), want) {
			t.Errorf("the program in %s is not that of %s, from `package main` on", document, example)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks checks the links between documents, and those to files.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, name := range documents(t) {
		content := text(t, name)
		for _, m := range link.FindAllStringSubmatch(content, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			where := name
			if target != "" {
				where = filepath.Join(filepath.Dir(name), target)
			}
			if _, err := os.Stat(filepath.Join(root, where)); err != nil {
				t.Errorf("%s: link to %s, which is not there", name, m[1])
				continue
			}
			if anchor != "" && !anchors(text(t, where))[anchor] {
				t.Errorf("%s: link to %s, which has no such heading", name, m[1])
			}
		}
	}
}

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// documents returns the Markdown files of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			names = append(names, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var (
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns the anchors that GitHub gives to headings.
func anchors(markdown string) map[string]bool {
	names := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(markdown, -1) {
		name := dropped.ReplaceAllString(strings.ToLower(m[1]), "")
		names[strings.ReplaceAll(name, " ", "-")] = true
	}
	return names
}
