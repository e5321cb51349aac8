package jwtauth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hearthws/hearth/internal/app/jwtauth"
)

func TestGrants(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g, err := jwtauth.NewGrants([][]byte{[]byte(secret), []byte(other)}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	create := func(secret, room, user string) string {
		grant, err := jwtauth.CreateGrant([]byte(secret), room, user, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return grant
	}
	hs := func(claims jwt.MapClaims) string {
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	soon := now.Add(time.Minute).Unix()
	for _, tt := range []struct {
		name, grant, user string
		want              jwtauth.Reason
	}{
		{"for anyone", create(secret, "lobby", ""), "ada", jwtauth.Accepted},
		{"for a client without an id", create(secret, "lobby", ""), "", jwtauth.Accepted},
		{"by the previous secret", create(other, "lobby", ""), "", jwtauth.Accepted},
		{"for a user", create(secret, "lobby", "ada"), "ada", jwtauth.Accepted},
		{"for another user", create(secret, "lobby", "ada"), "bob", jwtauth.Claims},
		{"for a user, from a client without an id", create(secret, "lobby", "ada"), "", jwtauth.Claims},
		{"for the empty user", hs(jwt.MapClaims{"room": "lobby", "exp": soon, "sub": ""}), "", jwtauth.Claims},
		{"foreign", create(strings.Repeat("x", 32), "lobby", ""), "ada", jwtauth.Signature},
		{"expired", hs(jwt.MapClaims{"room": "lobby", "exp": now.Add(-time.Minute).Unix()}), "ada", jwtauth.Expired},
		{"for ever", hs(jwt.MapClaims{"room": "lobby"}), "ada", jwtauth.Claims},
		{"for long", hs(jwt.MapClaims{"room": "lobby", "exp": now.Add(2 * time.Hour).Unix()}), "ada", jwtauth.Claims},
		{"no room", hs(jwt.MapClaims{"exp": soon}), "ada", jwtauth.Claims},
		{"several rooms", hs(jwt.MapClaims{"room": []string{"a"}, "exp": soon}), "ada", jwtauth.Claims},
		{"reserved room", hs(jwt.MapClaims{"room": "ws:x", "exp": soon}), "ada", jwtauth.Claims},
		{"none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", jwt.MapClaims{"room": "lobby"}), "ada", jwtauth.Algorithm},
		{"another hash", sign(t, jwt.SigningMethodHS384, []byte(secret), "", jwt.MapClaims{"room": "lobby"}), "ada", jwtauth.Algorithm},
		{"rubbish", "rubbish", "ada", jwtauth.Malformed},
		{"large", strings.Repeat("x", 9<<10), "ada", jwtauth.TooLarge},
	} {
		room, err := g.Verify(tt.grant, tt.user)
		checkReason(t, tt.name, err, tt.want)
		if (err == nil) != (room == "lobby") {
			t.Errorf("%s: room %q", tt.name, room)
		}
	}
	if _, err := jwtauth.NewGrants([][]byte{[]byte("short")}, 0); err == nil {
		t.Error("a short secret is accepted")
	}
	for _, lifetime := range []time.Duration{0, 2 * time.Hour} {
		if _, err := jwtauth.CreateGrant([]byte(secret), "lobby", "", lifetime); err == nil {
			t.Errorf("a lifetime of %v is accepted", lifetime)
		}
	}
}

func FuzzGrant(f *testing.F) {
	g, err := jwtauth.NewGrants([][]byte{[]byte(secret)}, 0)
	if err != nil {
		f.Fatal(err)
	}
	grant, err := jwtauth.CreateGrant([]byte(secret), "lobby", "", time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(grant, "ada")
	f.Add("a.b.c", "")
	f.Add(strings.Repeat(".", 100), "x")
	f.Fuzz(func(t *testing.T, text, user string) {
		if room, err := g.Verify(text, user); err == nil && room != "lobby" {
			t.Errorf("a forged grant for %q", room)
		}
	})
}
