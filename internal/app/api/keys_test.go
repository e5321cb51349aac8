package api_test

import (
	"strings"
	"testing"

	"github.com/hearthws/hearth/internal/app/api"
)

func TestParseKeys(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("s", 32)
	for _, tt := range []struct {
		text string
		n    int
		want string // part of the error
	}{
		{"", 0, ""},
		{"# comment\n\n", 0, ""},
		{"a=" + secret, 1, ""},
		{" a = " + secret + " \r\n b : publish + read = " + secret + "\n", 2, ""},
		{"a=" + secret + ",b:manage=" + secret + "==", 2, ""},
		{secret, 0, "key 1: takes NAME=KEY"},
		{"a=" + secret + "\na=" + secret, 0, "key 2: there is another key"},
		{"a=" + secret[:31], 0, "key 1: has 31 characters; it takes at least 32"},
		{"=" + secret, 0, "name"},
		{"a b=" + secret, 0, "name"},
		{"é=" + secret, 0, "name"},
		{"a:=" + secret, 0, "scopes take publish, read and manage"},
		{"a:read+write=" + secret, 0, "scopes take"},
	} {
		k, err := api.ParseKeys(tt.text)
		switch {
		case tt.want != "":
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secret[:8]) {
				t.Errorf("%q: %v", tt.text, err)
			}
		case err != nil || k.Len() != tt.n:
			t.Errorf("%q: %v", tt.text, err)
		}
	}
}

// FuzzParseKeys checks that no input crashes the parser or shows a secret in an error.
func FuzzParseKeys(f *testing.F) {
	f.Add("a=0123456789abcdef0123456789abcdef\nb:read+publish=0123456789abcdef0123456789abcdef")
	f.Add("a:x=secretsecretsecret")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := api.ParseKeys(text)
		if (k == nil) == (err == nil) {
			t.Fatalf("%v, %v", k, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("the error may show the input: %v", err)
		}
	})
}
