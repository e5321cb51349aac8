package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
)

func TestHistoryRulePatterns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern string
		yes, no []string
	}{
		{pattern: "", yes: []string{""}, no: []string{"a", "*"}},
		{pattern: "*", yes: []string{"", "a", "*", "chat:1", "ü\n"}},
		{pattern: "**", yes: []string{"", "a", "ab"}},
		{pattern: "chat", yes: []string{"chat"}, no: []string{"", "chats", "achat", "Chat", "*"}},
		{pattern: "chat:*", yes: []string{"chat:", "chat:1", "chat:*", "chat:chat:"}, no: []string{"chat", "a chat:1", "CHAT:1"}},
		{pattern: "*:log", yes: []string{":log", "a:log", ":log:log"}, no: []string{"log", ":logs"}},
		{pattern: "a*b*c", yes: []string{"abc", "axbxc", "abbc", "abcbc", "aabbcc"}, no: []string{"ac", "acb", "abx", "xabc", "abcx"}},
		{pattern: "ab*ba", yes: []string{"abba", "abxba"}, no: []string{"aba", "ab", "ba"}},
		{pattern: "aa*aa*aa", yes: []string{"aaaaaa", "aaxaaxaa"}, no: []string{"aaaaa", "aaaa", "aa"}},
		{pattern: "*aba*aba*", yes: []string{"abaaba", "xabaxabax"}, no: []string{"ababa", "aba"}},
		{pattern: "a**c", yes: []string{"ac", "abc"}, no: []string{"a", "c", "ca"}},
		{pattern: "[a]?", yes: []string{"[a]?"}, no: []string{"a", "ax"}},
		{pattern: "ü*", yes: []string{"ü", "üb"}, no: []string{"u", "\xc3"}},
	} {
		rule := broker.HistoryRule{Rooms: tt.pattern}
		for _, room := range tt.yes {
			if !rule.Matches(room) {
				t.Errorf("%q does not match %q", tt.pattern, room)
			}
		}
		for _, room := range tt.no {
			if rule.Matches(room) {
				t.Errorf("%q matches %q", tt.pattern, room)
			}
		}
	}
}

// TestHistoryRuleHostilePattern checks a pattern for which backtracking would take years.
func TestHistoryRuleHostilePattern(t *testing.T) {
	t.Parallel()
	rule := broker.HistoryRule{Rooms: strings.Repeat("*a", 60) + "*b"}
	if room := strings.Repeat("a", 4096); rule.Matches(room) || !rule.Matches(room+"b") {
		t.Error("a pattern of many parts matches a name without its end, or not one with it")
	}
}

func TestHistoryRulesFirstMatch(t *testing.T) {
	t.Parallel()
	rules := broker.HistoryRules{
		{Rooms: "chat:vip", Size: 1, Age: time.Minute},
		{Rooms: "chat:*", Size: 2, Age: time.Hour},
		{Rooms: "*:vip", Size: 3, Age: time.Hour},
	}
	for room, want := range map[string]int{"chat:vip": 1, "chat:1": 2, "news:vip": 3, "news": 0, "": 0} {
		rule, ok := rules.Rule(room)
		if rule.Size != want || ok != (want > 0) {
			t.Errorf("%q: rule of size %d, %v; want %d", room, rule.Size, ok, want)
		}
	}
	const client, uuid = "2f1b7c1e-6d0c-4f0e-9a55-0d4b358aef94", "2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c11"
	if all := (broker.HistoryRule{Rooms: "*"}); all.Matches(client) || !all.Matches(uuid) {
		t.Error("the room of a client has history, or a room named by another UUID has none")
	}
	if _, ok := broker.HistoryRules(nil).Rule("a"); ok {
		t.Error("no rules select a room")
	}
}

func TestHistoryRulesCheck(t *testing.T) {
	t.Parallel()
	valid := broker.HistoryRule{Rooms: "*", Size: 1, Age: time.Second}
	with := func(change func(*broker.HistoryRule)) broker.HistoryRules {
		r := valid
		change(&r)
		return broker.HistoryRules{valid, r}
	}
	for name, tt := range map[string]struct {
		rules broker.HistoryRules
		want  string // part of the error; empty: none
	}{
		"none":          {nil, ""},
		"least":         {broker.HistoryRules{valid}, ""},
		"most":          {with(func(r *broker.HistoryRule) { r.Size, r.Age = broker.MaxHistorySize, broker.MaxHistoryAge }), ""},
		"no rooms":      {with(func(r *broker.HistoryRule) { r.Rooms = "" }), "rule 2: Rooms is empty"},
		"no size":       {with(func(r *broker.HistoryRule) { r.Size = 0 }), "Size is 0; it can be 1 to 100000"},
		"negative size": {with(func(r *broker.HistoryRule) { r.Size = -1 }), "Size is -1"},
		"large size":    {with(func(r *broker.HistoryRule) { r.Size = broker.MaxHistorySize + 1 }), "Size is 100001"},
		"no age":        {with(func(r *broker.HistoryRule) { r.Age = 0 }), "Age is 0s; it can be 1s to 720h0m0s"},
		"short age":     {with(func(r *broker.HistoryRule) { r.Age = time.Second - 1 }), "Age is 999.999999ms"},
		"long age":      {with(func(r *broker.HistoryRule) { r.Age = broker.MaxHistoryAge + 1 }), "Age is 720h0m0.000000001s"},
	} {
		err := tt.rules.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
}

func TestParseHistoryRule(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]broker.HistoryRule{
		"chat:*=100/5m":     {Rooms: "chat:*", Size: 100, Age: 5 * time.Minute},
		"*=1/1s":            {Rooms: "*", Size: 1, Age: time.Second},
		"a=b=100000/720h":   {Rooms: "a=b", Size: broker.MaxHistorySize, Age: broker.MaxHistoryAge},
		"a/b, c=20/1h30m5s": {Rooms: "a/b, c", Size: 20, Age: time.Hour + 30*time.Minute + 5*time.Second},
	} {
		got, err := broker.ParseHistoryRule(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, error %v; want %+v", text, got, err, want)
		}
		if again, err := broker.ParseHistoryRule(got.String()); err != nil || again != want {
			t.Errorf("%q: written as %q: %+v, error %v", text, got, again, err)
		}
	}
	for text, want := range map[string]string{
		"":               "takes ROOMS=SIZE/AGE",
		"chat":           "takes ROOMS=SIZE/AGE",
		"chat=":          "has no age",
		"chat=100":       "has no age",
		"=100/5m":        "has no rooms",
		"chat=/5m":       `size ""`,
		"chat=0/5m":      `size "0": takes 1 to 100000`,
		"chat=-1/5m":     `size "-1"`,
		"chat=100001/5m": `size "100001"`,
		"chat=1.5/5m":    `size "1.5"`,
		"chat=100/":      `age ""`,
		"chat=100/5":     `age "5"`,
		"chat=100/999ms": `age "999ms"`,
		"chat=100/721h":  `age "721h"`,
		"chat=100/5m/5m": `age "5m/5m"`,
	} {
		if got, err := broker.ParseHistoryRule(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, error %v, want %q", text, got, err, want)
		}
	}
}

func FuzzParseHistoryRule(f *testing.F) {
	f.Add("chat:*=100/5m")
	f.Add("a=b=1/1s")
	f.Fuzz(func(t *testing.T, text string) {
		rule, err := broker.ParseHistoryRule(text)
		if err != nil {
			return
		}
		if err := (broker.HistoryRules{rule}).Check(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if again, err := broker.ParseHistoryRule(rule.String()); err != nil || again != rule {
			t.Errorf("%q: %+v became %+v, error %v", text, rule, again, err)
		}
	})
}
