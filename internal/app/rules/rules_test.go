package rules_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthws/hearth/internal/app/identity"
	"github.com/hearthws/hearth/internal/app/rules"
)

func parse(t testing.TB, patterns ...string) rules.Rules {
	t.Helper()
	r, err := rules.Parse(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAllow(t *testing.T) {
	t.Parallel()
	ada := identity.Identity{User: "ada", Claims: map[string]string{"team": "red", "empty": ""}}
	for _, tt := range []struct {
		pattern string
		id      identity.Identity
		room    string
		want    bool
	}{
		{"lobby", ada, "lobby", true},
		{"lobby", ada, "lobby2", false},
		{"lobby", ada, "Lobby", false},
		{"*", ada, "anything", true},
		{"chat:*", ada, "chat:1", true},
		{"chat:*", ada, "chat:", true},
		{"chat:*", ada, "chat", false},
		{"*:log", ada, "a:b:log", true},
		{"a*b*c", ada, "abc", true},
		{"a*b*c", ada, "axbxbxc", true},
		{"a*b*c", ada, "ac", false},
		{"a*a", ada, "a", false},
		{"user:{user}", ada, "user:ada", true},
		{"user:{user}", ada, "user:bob", false},
		{"user:{user}", ada, "user:ada:x", false},
		{"user:{user}:*", ada, "user:ada:x", true},
		{"user:{user}:*", ada, "user:adamant:x", false},
		{"{user}", ada, "ada", true},
		{"team:{claim:team}", ada, "team:red", true},
		{"team:{claim:team}:{user}", ada, "team:red:ada", true},
		{"team:{claim:none}", ada, "team:", false},
		{"team:{claim:empty}", ada, "team:", false},

		// Without a user id, a pattern with {user} matches nothing.
		{"user:{user}", identity.Identity{}, "user:", false},
		{"user:{user}*", identity.Identity{}, "user:ada", false},

		// Values are not patterns, and cannot reach into other parts of the name.
		{"user:{user}", identity.Identity{User: "*"}, "user:ada", false},
		{"user:{user}", identity.Identity{User: "*"}, "user:*", true},
		{"user:{user}", identity.Identity{User: "{user}"}, "user:ada", false},
		{"user:{user}", identity.Identity{User: "a:b"}, "user:a:b", true},
		{"user:{user}:*", identity.Identity{User: "a"}, "user:a:b:inbox", true},
		{"user:{user}:*", identity.Identity{User: "a:b"}, "user:a:b:inbox", false},
		{"*:{user}", identity.Identity{User: "a:b"}, "x:a:b", false},
		{"{claim:team}:{user}", identity.Identity{User: "c", Claims: map[string]string{"team": "a:b"}}, "a:b:c", false},
		{"{claim:team}:{user}", identity.Identity{User: "b:c", Claims: map[string]string{"team": "a"}}, "a:b:c", false},
		{"{claim:team}:{user}", identity.Identity{User: "c", Claims: map[string]string{"team": "a"}}, "a:c", true},
		{"{user}→*", identity.Identity{User: "a→b"}, "a→b→c", false},
	} {
		if strings.Contains(tt.pattern, "{user}*") {
			if _, err := rules.Parse([]string{tt.pattern}); err == nil {
				t.Errorf("%s is not rejected", tt.pattern)
			}
			continue
		}
		if got := parse(t, "never", tt.pattern).Allow(&tt.id, tt.room); got != tt.want {
			t.Errorf("%s for %+v, room %s: %v", tt.pattern, tt.id, tt.room, got)
		}
	}
	if (rules.Rules{}).Allow(&ada, "lobby") {
		t.Error("no rules allow a room")
	}
}

func TestParseRejects(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"": "empty", "a{user": "no }", "{}": "{user}", "{usr}": "is not a variable", "{claim:}": "is not a variable",
		"**": "between two variables", "{user}*": "between two variables", "*{claim:x}": "between two variables", "\xff": "UTF-8",
		strings.Repeat("x", 1025): "1024",
	} {
		if _, err := rules.Parse([]string{"good", pattern}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q in it", pattern, err, want)
		}
	}
	if _, err := rules.Parse(slices.Repeat([]string{"a"}, 1001)); err == nil {
		t.Error("too many patterns are accepted")
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	if got := parse(t, "a:{claim:team}", "{claim:org}:{claim:team}:{user}").Claims(); !slices.Equal(got, []string{"team", "org"}) {
		t.Error(got)
	}
}

// TestAllowOracle compares Allow with a regular expression.
func TestAllowOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ab:]{0,3}`)
		pattern := rapid.StringMatching(`[ab:]{1,2}(\*[ab:]{1,2}){0,4}`).Draw(t, "pattern")
		room := text.Draw(t, "room") + text.Draw(t, "rest") + text.Draw(t, "end")
		r, err := rules.Parse([]string{pattern})
		if err != nil {
			t.Fatal(err)
		}
		want := regexp.MustCompile("^" + strings.ReplaceAll(pattern, "*", ".*") + "$").MatchString(room)
		if got := r.Allow(&identity.Identity{}, room); got != want {
			t.Errorf("%s, room %s: %v", pattern, room, got)
		}
	})
}

// TestUsersAreApart checks that no two users share a room by a pattern with {user}, whatever their
// ids are, unless the rest of the pattern is a "*" in a place of its own.
func TestUsersAreApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a:*{}-]{1,5}`)
		one, two := name.Draw(t, "one"), name.Draw(t, "two")
		room := name.Draw(t, "room") + ":" + name.Draw(t, "rest")
		for _, pattern := range []string{"{user}:*", "*:{user}", "*:{user}:*", "{user}:{claim:team}", "{claim:team}:{user}"} {
			r, err := rules.Parse([]string{pattern})
			if err != nil {
				t.Fatal(err)
			}
			if one == two || pattern == "*:{user}:*" && strings.Count(room, ":") > 2 {
				continue
			}
			a := identity.Identity{User: one, Claims: map[string]string{"team": "a"}}
			b := identity.Identity{User: two, Claims: map[string]string{"team": "a"}}
			if r.Allow(&a, room) && r.Allow(&b, room) {
				t.Errorf("%s: the users %s and %s are both allowed in %s", pattern, one, two, room)
			}
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add("user:{user}:*", "ada", "red", "user:ada:x")
	f.Add("{claim:team}-{user}", "a*", "{user}", "x")
	f.Add("a*b*c*d", "", "", "abcd")
	f.Fuzz(func(t *testing.T, pattern, user, team, room string) {
		r, err := rules.Parse([]string{pattern})
		if err != nil {
			return
		}
		allowed := r.Allow(&identity.Identity{User: user, Claims: map[string]string{"team": team}}, room)
		if allowed && !strings.ContainsAny(pattern, "*{") && pattern != room {
			t.Errorf("%q matches %q", pattern, room)
		}
		if allowed && strings.Contains(pattern, "{user}") && (user == "" || !strings.Contains(room, user)) {
			t.Errorf("%q matches %q for the user %q", pattern, room, user)
		}
	})
}
