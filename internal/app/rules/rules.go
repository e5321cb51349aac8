// Package rules decides what clients of the server binary may do in rooms, by patterns for the
// names of the rooms. It needs no backend.
package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hearthws/hearth/internal/app/identity"
)

const (
	maxPatterns = 1000 // in one list
	maxPattern  = 1024 // bytes of a pattern
)

// Rules are patterns of rooms. The zero Rules match no room. It is read-only.
type Rules struct {
	patterns []pattern
	text     string // the patterns, as String returns them
}

// A pattern is a sequence of parts: text, then a variable, then text and so on. There is text
// between two variables.
type pattern []part

// A part of a pattern is text or a variable.
type part struct {
	kind kind
	text string // the text, or the name of the claim
}

type kind int

const (
	literal kind = iota
	anyText      // *
	userID       // {user}
	claim        // {claim:NAME}
)

// Parse parses patterns. In a pattern, "*" stands for any text, also for none, {user} for the user
// id of the client, and {claim:NAME} for a claim of its token. Everything else stands for itself.
// The error names the pattern that is not valid.
func Parse(patterns []string) (Rules, error) {
	if len(patterns) > maxPatterns {
		return Rules{}, fmt.Errorf("there are %d patterns, limit %d", len(patterns), maxPatterns)
	}
	r := Rules{text: strings.Join(patterns, ",")}
	for _, text := range patterns {
		p, err := parse(text)
		if err != nil {
			return Rules{}, fmt.Errorf("%.64q: %w", text, err)
		}
		r.patterns = append(r.patterns, p)
	}
	return r, nil
}

func parse(text string) (pattern, error) {
	switch {
	case text == "":
		return nil, errors.New("a pattern is empty: give the name of a room, or a pattern as in chat:*")
	case len(text) > maxPattern:
		return nil, fmt.Errorf("a pattern has %d bytes, limit %d", len(text), maxPattern)
	case !utf8.ValidString(text):
		return nil, errors.New("a pattern is not valid UTF-8")
	}
	var p pattern
	for text != "" {
		next, rest, err := nextPart(text)
		if err != nil {
			return nil, err
		}
		if next.kind != literal && len(p) > 0 && p[len(p)-1].kind != literal {
			return nil, errors.New("put text between two variables, as in {user}:*, or it is not clear where one ends")
		}
		p, text = append(p, next), rest
	}
	return p, nil
}

// nextPart returns the first part of a text that is not empty, and the rest.
func nextPart(text string) (p part, rest string, err error) {
	switch text[0] {
	case '*':
		return part{kind: anyText}, text[1:], nil
	case '{':
		name, rest, ok := strings.Cut(text[1:], "}")
		if !ok {
			return part{}, "", errors.New("a { has no }")
		}
		if name == "user" {
			return part{kind: userID}, rest, nil
		}
		if name, ok := strings.CutPrefix(name, "claim:"); ok && name != "" {
			return part{kind: claim, text: name}, rest, nil
		}
		return part{}, "", fmt.Errorf("{%.64s} is not a variable: use {user}, or {claim:team} for the claim team", name)
	}
	end := strings.IndexAny(text, "*{")
	if end < 0 {
		end = len(text)
	}
	return part{text: text[:end]}, text[end:], nil
}

// String returns the patterns with commas between them.
func (r Rules) String() string { return r.text }

// Claims returns the names of the claims in the patterns, each once.
func (r Rules) Claims() []string {
	var names []string
	for _, p := range r.patterns {
		for _, part := range p {
			if part.kind == claim && !slices.Contains(names, part.text) {
				names = append(names, part.text)
			}
		}
	}
	return names
}

// Allow reports whether a pattern matches the room for that client. The time is proportional to the
// length of the name, the patterns, and the variables in them.
func (r Rules) Allow(id *identity.Identity, room string) bool {
	return slices.ContainsFunc(r.patterns, func(p pattern) bool { return p.matches(id, room) })
}

// matches reports whether the pattern matches a room. The values of variables are matched as they
// are: a "*" in a user id is a character.
func (p pattern) matches(id *identity.Identity, room string) bool {
	// The pattern as texts with any text between them.
	texts := []string{""}
	for i, part := range p {
		if part.kind == anyText {
			texts = append(texts, "")
			continue
		}
		text, ok := p.value(i, id)
		if !ok {
			return false
		}
		texts[len(texts)-1] += text
	}
	rest, ok := strings.CutPrefix(room, texts[0])
	if !ok || len(texts) == 1 {
		return ok && rest == ""
	}
	last := len(texts) - 1
	for _, text := range texts[1:last] {
		if _, rest, ok = strings.Cut(rest, text); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, texts[last])
}

// value returns the text of part i for a client. ok is false if the client has no such value, or if
// the value is not safe in this place: next to another variable in the pattern, it must not have
// the character that separates them. Otherwise the user "a:b" could be in a room of the user "b".
func (p pattern) value(i int, id *identity.Identity) (text string, ok bool) {
	switch p[i].kind {
	case userID:
		text = id.User
	case claim:
		text = id.Claims[p[i].text]
	default:
		return p[i].text, true
	}
	if text == "" {
		return "", false
	}
	if i >= 2 {
		before, _ := utf8.DecodeLastRuneInString(p[i-1].text)
		ok = !strings.ContainsRune(text, before)
	} else {
		ok = true
	}
	if i+2 < len(p) {
		after, _ := utf8.DecodeRuneInString(p[i+1].text)
		ok = ok && !strings.ContainsRune(text, after)
	}
	return text, ok
}
