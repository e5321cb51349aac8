package archtest_test

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// The part of the language rule in CONTRIBUTING.md that a program can check. Every limit is a
// ratchet: lower it when the text gets better, and never raise it.
const (
	// Prose ends by this column. A tab counts as 4 columns.
	maxColumns = 100

	// Lines beyond maxColumns, per 1,000 lines. The target is 10.
	maxLongInComments, maxLongInDocuments = 5.0, 2.0

	// Words such as "who" and "nobody", in place of "the client" or "no caller", per 1,000 words. The
	// target is 0.6.
	maxPronounsInComments, maxPronounsInDocuments = 0.3, 0.2

	// Uses of the phrase in butFor. The target is 0.
	maxButForInComments, maxButForInDocuments = 0, 0
)

var (
	pronoun = regexp.MustCompile(`(?i)\b(who|whoever|whom|nobody|somebody|anybody|everybody)\b`)
	butFor  = regexp.MustCompile(`(?i)\bbut for\b`)
	code    = regexp.MustCompile("`[^`]*`")
	word    = regexp.MustCompile(`\pL[\pL\pN'’-]*`)
)

// TestProse checks the comments of all Go files, and the documents.
func TestProse(t *testing.T) {
	t.Parallel()
	all := source(t)
	comments := prose{kind: "comments"}
	for _, f := range all.files {
		comments.addGo(t, all, f)
	}
	comments.check(t, maxLongInComments, maxPronounsInComments, maxButForInComments)

	docs := prose{kind: "documents"}
	for _, name := range documents(t) {
		docs.addMarkdown(name, text(t, name))
	}
	docs.check(t, maxLongInDocuments, maxPronounsInDocuments, maxButForInDocuments)
}

// prose counts the lines and words of one kind of text and records the places that break the rule.
type prose struct {
	kind                   string
	lines, words           int
	long, pronouns, butFor []string
}

// addGo adds the comments of a file. It ignores the length of directives and code blocks.
func (p *prose) addGo(t *testing.T, all *tree, f *file) {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, f.name))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(source), "\n")
	for _, group := range f.syntax.Comments {
		p.addText(all.position(group), group.Text())
		for _, comment := range group.List {
			first := all.fset.Position(comment.Pos()).Line
			for i, line := range strings.Split(comment.Text, "\n") {
				if directive(comment) || strings.HasPrefix(line, "//\t") {
					continue
				}
				p.addLine(fmt.Sprintf("%s:%d", f.name, first+i), lines[first+i-1])
			}
		}
	}
}

// directive reports whether a comment is for a tool, such as //go:build.
func directive(c *ast.Comment) bool {
	return strings.HasPrefix(c.Text, "//") && !strings.HasPrefix(c.Text, "// ") && !strings.HasPrefix(c.Text, "//\t")
}

// addMarkdown adds a document without its code. It ignores the length of table rows.
func (p *prose) addMarkdown(name, content string) {
	var paragraph []string
	fenced, blank := false, true
	for i, line := range strings.Split(content, "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced:
		case blank && strings.HasPrefix(line, "    "): // an indented code block
			continue
		default:
			paragraph = append(paragraph, line)
			if !strings.HasPrefix(strings.TrimSpace(line), "|") {
				p.addLine(fmt.Sprintf("%s:%d", name, i+1), line)
			}
		}
		blank = strings.TrimSpace(line) == ""
	}
	p.addText(name, code.ReplaceAllString(strings.Join(paragraph, "\n"), ""))
}

// addLine counts a line and records it if it is too long and has no URL.
func (p *prose) addLine(place, line string) {
	p.lines++
	columns := utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
	if columns > maxColumns && !strings.Contains(line, "://") {
		p.long = append(p.long, fmt.Sprintf("%s (%d columns)", place, columns))
	}
}

// addText counts the words of a text and records those that the rule is about.
func (p *prose) addText(place, content string) {
	content = strings.Join(strings.Fields(content), " ") // a phrase may go over the end of a line
	p.words += len(word.FindAllString(content, -1))
	for _, found := range pronoun.FindAllString(content, -1) {
		p.pronouns = append(p.pronouns, place+": "+found)
	}
	for range butFor.FindAllString(content, -1) {
		p.butFor = append(p.butFor, place)
	}
}

// check compares the counts with their limits.
func (p *prose) check(t *testing.T, maxLong, maxPronouns float64, maxButFor int) {
	t.Helper()
	long := 1000 * float64(len(p.long)) / float64(p.lines)
	pronouns := 1000 * float64(len(p.pronouns)) / float64(p.words)
	t.Logf("%s: %d lines, %d words; %.1f long lines per 1,000, %.2f pronouns per 1,000 words, %d times \"but for\"",
		p.kind, p.lines, p.words, long, pronouns, len(p.butFor))
	if long > maxLong {
		t.Errorf("%s: %.1f of 1,000 lines end after column %d, limit %.1f:\n%s",
			p.kind, long, maxColumns, maxLong, first(p.long))
	}
	if pronouns > maxPronouns {
		t.Errorf("%s: %.2f of 1,000 words are who, nobody and the like, limit %.2f; name the client, caller or node:\n%s",
			p.kind, pronouns, maxPronouns, first(p.pronouns))
	}
	if len(p.butFor) > maxButFor {
		t.Errorf("%s: \"but for\" %d times, limit %d; write \"except\":\n%s",
			p.kind, len(p.butFor), maxButFor, first(p.butFor))
	}
}

// first returns up to 40 places, one per line.
func first(places []string) string {
	return strings.Join(places[:min(len(places), 40)], "\n")
}
