package jwtauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hearthws/hearth/internal/app/identity"
	"github.com/hearthws/hearth/internal/app/jwtauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret = "0123456789abcdef0123456789abcdef"
	other  = "ffffffffffffffffffffffffffffffff"
)

// sign returns a token with the claims, and with exp in an hour unless they have it.
func sign(t testing.TB, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix(), "sub": "ada"}
	for name, value := range claims {
		all[name] = value
	}
	token := jwt.NewWithClaims(method, all)
	if kid != "" {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func verifier(t testing.TB, cfg jwtauth.Config) *jwtauth.Verifier {
	t.Helper()
	v, err := jwtauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkReason fails unless err is an Error with that reason, or nil for Accepted.
func checkReason(t *testing.T, what string, err error, want jwtauth.Reason) {
	t.Helper()
	got := jwtauth.Accepted
	if err != nil {
		e, ok := errors.AsType[*jwtauth.Error](err)
		if !ok {
			t.Fatalf("%s: the error is not an Error: %v", what, err)
		}
		got = e.Reason
	}
	if got != want {
		t.Errorf("%s: %v (%v), want %v", what, got, err, want)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	now := time.Now()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)})
	hs := func(claims jwt.MapClaims) string { return sign(t, jwt.SigningMethodHS256, []byte(secret), "", claims) }
	valid := hs(nil)
	parts := strings.Split(valid, ".")
	payload, _ := json.Marshal(map[string]any{"sub": "eve", "exp": now.Add(time.Hour).Unix()})
	for _, tt := range []struct {
		name  string
		cfg   jwtauth.Config
		token string
		want  jwtauth.Reason
	}{
		{"valid", jwtauth.Config{}, valid, jwtauth.Accepted},
		{"by the previous secret", jwtauth.Config{}, sign(t, jwt.SigningMethodHS256, []byte(other), "", nil), jwtauth.Accepted},
		{"by a foreign secret", jwtauth.Config{}, sign(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), "", nil), jwtauth.Signature},
		{"alg none", jwtauth.Config{}, sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", nil), jwtauth.Algorithm},
		{"alg NonE", jwtauth.Config{}, base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"NonE"}`)) + "." + parts[1] + ".", jwtauth.Algorithm},
		{"no alg", jwtauth.Config{}, base64.RawURLEncoding.EncodeToString([]byte(`{}`)) + "." + parts[1] + "." + parts[2], jwtauth.Algorithm},
		{"another hash", jwtauth.Config{}, sign(t, jwt.SigningMethodHS512, []byte(secret), "", nil), jwtauth.Algorithm},
		{"public key as a secret", jwtauth.Config{PublicKeys: []crypto.PublicKey{&rsaKey.PublicKey}}, sign(t, jwt.SigningMethodHS256, public, "", nil), jwtauth.Algorithm},
		{"RSA", jwtauth.Config{PublicKeys: []crypto.PublicKey{&rsaKey.PublicKey}}, sign(t, jwt.SigningMethodRS256, rsaKey, "", nil), jwtauth.Accepted},
		{"RSA with a secret", jwtauth.Config{}, sign(t, jwt.SigningMethodRS256, rsaKey, "", nil), jwtauth.Algorithm},
		{"changed claims", jwtauth.Config{}, parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + parts[2], jwtauth.Signature},
		{"no signature", jwtauth.Config{}, parts[0] + "." + parts[1] + ".", jwtauth.Signature},
		{"empty", jwtauth.Config{}, "", jwtauth.Malformed},
		{"two parts", jwtauth.Config{}, parts[0] + "." + parts[1], jwtauth.Malformed},
		{"four parts", jwtauth.Config{}, valid + ".x", jwtauth.Malformed},
		{"not base64", jwtauth.Config{}, "a!." + parts[1] + "." + parts[2], jwtauth.Malformed},
		{"too large", jwtauth.Config{}, hs(jwt.MapClaims{"x": strings.Repeat("x", 8<<10)}), jwtauth.TooLarge},
		{"many dots", jwtauth.Config{}, strings.Repeat(".", 8<<10), jwtauth.Malformed},

		{"expired", jwtauth.Config{}, hs(jwt.MapClaims{"exp": now.Add(-time.Minute).Unix()}), jwtauth.Expired},
		{"expired within the leeway", jwtauth.Config{Leeway: 2 * time.Minute}, hs(jwt.MapClaims{"exp": now.Add(-time.Minute).Unix()}), jwtauth.Accepted},
		{"no exp", jwtauth.Config{}, hs(jwt.MapClaims{"exp": nil}), jwtauth.Claims},
		{"exp is a text", jwtauth.Config{}, hs(jwt.MapClaims{"exp": "tomorrow"}), jwtauth.Claims},
		{"exp is huge", jwtauth.Config{}, hs(jwt.MapClaims{"exp": json.Number("1e300")}), jwtauth.Claims},
		{"exp is negative", jwtauth.Config{}, hs(jwt.MapClaims{"exp": -5}), jwtauth.Claims},
		{"exp is 0", jwtauth.Config{}, hs(jwt.MapClaims{"exp": 0}), jwtauth.Expired},
		{"exp has a fraction", jwtauth.Config{}, hs(jwt.MapClaims{"exp": float64(now.Add(time.Hour).Unix()) + 0.5}), jwtauth.Accepted},
		{"nbf later", jwtauth.Config{}, hs(jwt.MapClaims{"nbf": now.Add(time.Minute).Unix()}), jwtauth.NotYetValid},
		{"nbf within the leeway", jwtauth.Config{Leeway: 2 * time.Minute}, hs(jwt.MapClaims{"nbf": now.Add(time.Minute).Unix()}), jwtauth.Accepted},

		{"audience", jwtauth.Config{Audiences: []string{"a", "b"}}, hs(jwt.MapClaims{"aud": []string{"x", "b"}}), jwtauth.Accepted},
		{"one audience", jwtauth.Config{Audiences: []string{"a"}}, hs(jwt.MapClaims{"aud": "a"}), jwtauth.Accepted},
		{"another audience", jwtauth.Config{Audiences: []string{"a"}}, hs(jwt.MapClaims{"aud": "x"}), jwtauth.Audience},
		{"no audience", jwtauth.Config{Audiences: []string{"a"}}, valid, jwtauth.Claims},
		{"issuer", jwtauth.Config{Issuer: "i"}, hs(jwt.MapClaims{"iss": "i"}), jwtauth.Accepted},
		{"another issuer", jwtauth.Config{Issuer: "i"}, hs(jwt.MapClaims{"iss": "j"}), jwtauth.Issuer},
		{"no issuer", jwtauth.Config{Issuer: "i"}, valid, jwtauth.Claims},
		{"issuer is a number", jwtauth.Config{Issuer: "i"}, hs(jwt.MapClaims{"iss": 1}), jwtauth.Claims},

		{"no user", jwtauth.Config{}, hs(jwt.MapClaims{"sub": ""}), jwtauth.Claims},
		{"user is null", jwtauth.Config{}, hs(jwt.MapClaims{"sub": nil}), jwtauth.Claims},
		{"user is a list", jwtauth.Config{}, hs(jwt.MapClaims{"sub": []string{"ada"}}), jwtauth.Claims},
		{"user is a fraction", jwtauth.Config{}, hs(jwt.MapClaims{"sub": 1.5}), jwtauth.Claims},
		{"user is long", jwtauth.Config{}, hs(jwt.MapClaims{"sub": strings.Repeat("u", 257)}), jwtauth.Claims},
		{"rooms is a number", jwtauth.Config{}, hs(jwt.MapClaims{"rooms": 1}), jwtauth.Claims},
		{"a room is null", jwtauth.Config{}, hs(jwt.MapClaims{"rooms": []any{"a", nil}}), jwtauth.Claims},
		{"a room is reserved", jwtauth.Config{}, hs(jwt.MapClaims{"rooms": []string{"ws:x"}}), jwtauth.Claims},
		{"metadata is large", jwtauth.Config{}, hs(jwt.MapClaims{"metadata": strings.Repeat("m", 4<<10)}), jwtauth.Claims},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if len(tt.cfg.PublicKeys) == 0 {
				tt.cfg.Secrets = [][]byte{[]byte(secret), []byte(other)}
			}
			v := verifier(t, tt.cfg)
			_, err := v.Verify(context.Background(), tt.token)
			checkReason(t, tt.name, err, tt.want)
			if err != nil && len(tt.token) > 100 && strings.Contains(err.Error(), tt.token[20:60]) {
				t.Errorf("the error has a part of the token: %v", err)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	v := verifier(t, jwtauth.Config{
		Secrets: [][]byte{[]byte(secret)}, Leeway: 10 * time.Second, UserClaim: "uid", RoomsClaim: "r", Keep: []string{"team", "absent", "list", "n"},
	})
	id, err := v.Verify(context.Background(), sign(t, jwt.SigningMethodHS256, []byte(secret), "", jwt.MapClaims{
		"exp": exp.Unix(), "uid": 42, "r": []string{"a", "b"}, "metadata": map[string]any{"name": "Ada"}, "team": "red", "list": []int{1}, "n": 7,
	}))
	want := identity.Identity{
		User: "42", Rooms: []string{"a", "b"}, Metadata: json.RawMessage(`{"name":"Ada"}`), Claims: map[string]string{"team": "red", "n": "7"},
		Expires: exp.Add(10 * time.Second),
	}
	if d := cmp.Diff(want, id); err != nil || d != "" {
		t.Error(err, d)
	}
}

func TestNewRejects(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cfg  jwtauth.Config
		want string
	}{
		{"no keys", jwtauth.Config{}, "keys of one kind"},
		{"two kinds", jwtauth.Config{Secrets: [][]byte{[]byte(secret)}, JWKS: "https://a.example"}, "keys of one kind"},
		{"short secret", jwtauth.Config{Secrets: [][]byte{[]byte("short")}}, "at least 32"},
		{"secret for a larger hash", jwtauth.Config{Secrets: [][]byte{[]byte(secret)}, Algorithms: []string{"HS512"}}, "at least 64"},
		{"none", jwtauth.Config{Secrets: [][]byte{[]byte(secret)}, Algorithms: []string{"none"}}, `"none" is not an algorithm`},
		{"secret for RSA", jwtauth.Config{Secrets: [][]byte{[]byte(secret)}, Algorithms: []string{"RS256"}}, "does not fit"},
		{"key set for HMAC", jwtauth.Config{JWKS: "https://a.example", Algorithms: []string{"HS256"}}, "does not fit"},
		{"weak RSA", jwtauth.Config{PublicKeys: []crypto.PublicKey{&weak.PublicKey}}, "1024 bits"},
		{"curve", jwtauth.Config{PublicKeys: []crypto.PublicKey{&p384.PublicKey}}, "ES384"},
		{"no https", jwtauth.Config{JWKS: "http://a.example/jwks"}, "https"},
		{"password", jwtauth.Config{JWKS: "https://u:p@a.example/jwks"}, "without a user"},
		{"no URL", jwtauth.Config{JWKS: "a.example"}, "takes a URL"},
		{"file", jwtauth.Config{JWKS: "file:///etc/passwd"}, "takes a URL"},
	} {
		if _, err := jwtauth.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

func TestParsePublicKeys(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	good := block("PUBLIC KEY", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(private)
	bad := block("PRIVATE KEY", der, err)
	for _, tt := range []struct {
		name, text string
		keys       int
		want       string
	}{
		{"one", good, 1, ""},
		{"two", good + "\n" + good, 2, ""},
		{"none", "", 0, "not public keys"},
		{"rubbish after it", good + "rubbish", 0, "not public keys"},
		{"private", good + bad, 0, "only the public key"},
		{"another block", block("DH PARAMETERS", []byte{1}, nil), 0, "DH PARAMETERS"},
		{"bad block", block("PUBLIC KEY", []byte{1}, nil), 0, "parse a public key"},
	} {
		keys, err := jwtauth.ParsePublicKeys([]byte(tt.text))
		if len(keys) != tt.keys || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d keys, %v", tt.name, len(keys), err)
		}
	}
}

// FuzzClaims verifies tokens with any claims, signed with the right key.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"sub":"ada","exp":4102444800}`, `{"sub":7,"exp":4102444800,"rooms":["a"],"metadata":{}}`, `{"exp":1e400}`, `null`, `[]`,
		`{"sub":"a","exp":4102444800,"aud":["x",1],"nbf":-1}`, `{"sub":"\ud800","exp":253402300799,"rooms":"one"}`, `{"team":"\u0000"}`,
	} {
		f.Add(seed)
	}
	v := verifier(f, jwtauth.Config{Secrets: [][]byte{[]byte(secret)}, Keep: []string{"team"}})
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`))
	f.Fuzz(func(t *testing.T, claims string) {
		text := header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		signature, err := jwt.SigningMethodHS256.Sign(text, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		id, err := v.Verify(context.Background(), text+"."+base64.RawURLEncoding.EncodeToString(signature))
		if err != nil {
			return
		}
		if id.User == "" || id.Check() != nil || !id.Expires.After(time.Now()) || id.Expires.Year() > 9999 {
			t.Errorf("accepted %+v", id)
		}
		if id.Metadata != nil && !json.Valid(id.Metadata) {
			t.Errorf("the metadata is not JSON: %q", id.Metadata)
		}
	})
}
