package ticket_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hearthws/hearth/internal/ticket"
)

const (
	lifetime = 2 * time.Minute
	maxText  = 8 << 10
)

var now = time.UnixMilli(1_772_357_400_250)

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, ticket.MinSecret) }

func newSealer(t testing.TB, secrets ...[]byte) *ticket.Sealer {
	t.Helper()
	s, err := ticket.NewSealer(secrets, lifetime, maxText)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func seal(t testing.TB, s *ticket.Sealer, tk ticket.Ticket) string {
	t.Helper()
	text, err := s.Seal(&tk, now)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var full = ticket.Ticket{
	Client: [16]byte{1, 2, 3}, Generation: 7, User: "ada\x00", Metadata: []byte(`{"name":"Ada"}`), Rooms: []string{"lobby", "", "ws-default"},
	Encrypted: true, Credentials: now.Add(time.Hour),
}

// TestRoundTrip opens what was sealed, with the same secret and with a Sealer that knows it as an
// older one.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, tk := range map[string]ticket.Ticket{
		"empty":           {},
		"full":            full,
		"many rooms":      {Rooms: strings.Split(strings.Repeat("room,", 1000), ",")},
		"last generation": {Generation: 1<<32 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := seal(t, newSealer(t, secret(1)), tk)
			if again := seal(t, newSealer(t, secret(1)), tk); again == text {
				t.Error("two tickets are equal")
			}
			for _, opener := range []*ticket.Sealer{newSealer(t, secret(1)), newSealer(t, secret(2), secret(1))} {
				got, err := opener.Open(text, now.Add(lifetime-time.Millisecond))
				if err != nil {
					t.Fatal(err)
				}
				want := tk
				want.Issued, want.Expires = now, now.Add(lifetime)
				if diff := cmp.Diff(&want, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// TestOpenErrors checks the reason for each ticket that is not accepted.
func TestOpenErrors(t *testing.T) {
	t.Parallel()
	s := newSealer(t, secret(1), secret(2))
	good := seal(t, s, full)
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int) string {
		b := bytes.Clone(raw)
		b[at] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	short := full
	short.Credentials = now.Add(time.Second)
	for name, c := range map[string]struct {
		text string
		at   time.Time
		want error
	}{
		"empty":                 {"", now, ticket.ErrMalformed},
		"not base64":            {good[:40] + "+" + good[41:], now, ticket.ErrMalformed},
		"padding":               {good + "=", now, ticket.ErrMalformed},
		"a line break":          {good + "\n", now, ticket.ErrMalformed},
		"too short":             {good[:43], now, ticket.ErrMalformed},
		"too long":              {strings.Repeat("A", maxText+1), now, ticket.ErrMalformed},
		"another version":       {changed(0), now, ticket.ErrMalformed},
		"another id":            {changed(5), now, ticket.ErrForged},
		"other fields":          {changed(20), now, ticket.ErrForged},
		"another tag":           {changed(len(raw) - 1), now, ticket.ErrForged},
		"truncated":             {base64.RawURLEncoding.EncodeToString(raw[:len(raw)-1]), now, ticket.ErrForged},
		"only zeros":            {strings.Repeat("A", 100), now, ticket.ErrMalformed},
		"foreign secret":        {seal(t, newSealer(t, secret(3)), full), now, ticket.ErrForged},
		"random secret":         {seal(t, newSealer(t), full), now, ticket.ErrForged},
		"in the future":         {good, now.Add(-ticket.MaxSkew - time.Second), ticket.ErrFuture},
		"expired":               {good, now.Add(lifetime), ticket.ErrExpired},
		"credentials expired":   {seal(t, s, short), now.Add(time.Second), ticket.ErrExpired},
		"credentials not yet":   {seal(t, s, short), now.Add(time.Second - 1), nil},
		"a little ahead of now": {good, now.Add(-ticket.MaxSkew), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := s.Open(c.text, c.at); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

// TestOwnLifetime checks that a node does not accept a ticket for longer than it remembers its use,
// even if another node issued it with a longer lifetime.
func TestOwnLifetime(t *testing.T) {
	t.Parallel()
	long, err := ticket.NewSealer([][]byte{secret(1)}, time.Hour, maxText)
	if err != nil {
		t.Fatal(err)
	}
	text := seal(t, long, full)
	if _, err := newSealer(t, secret(1)).Open(text, now.Add(lifetime)); !errors.Is(err, ticket.ErrExpired) {
		t.Errorf("after the own lifetime: %v", err)
	}
	if _, err := long.Open(text, now.Add(lifetime)); err != nil {
		t.Errorf("the issuer: %v", err)
	}
}

// TestSealedText checks that a ticket shows nothing of its content, and its bound.
func TestSealedText(t *testing.T) {
	t.Parallel()
	s := newSealer(t, secret(1))
	tk := ticket.Ticket{User: "grace", Metadata: []byte(strings.Repeat("m", 5000))}
	text := seal(t, s, tk)
	if raw, _ := base64.RawURLEncoding.DecodeString(text); bytes.Contains(raw, []byte("grace")) || bytes.Contains(raw, []byte("mmmm")) {
		t.Error("the content is readable")
	}
	if len(text) > maxText {
		t.Errorf("%d bytes", len(text))
	}
	for n := 6000; ; n++ {
		tk.Metadata = []byte(strings.Repeat("m", n))
		text, err := s.Seal(&tk, now)
		if err != nil {
			if !errors.Is(err, ticket.ErrTooLarge) || n < 6050 {
				t.Errorf("%d bytes of metadata: %v", n, err)
			}
			return
		}
		if _, err := s.Open(text, now); len(text) > maxText || err != nil {
			t.Fatalf("%d bytes: %v", len(text), err)
		}
	}
}

// TestSecrets checks which secrets are rejected.
func TestSecrets(t *testing.T) {
	t.Parallel()
	for name, secrets := range map[string][][]byte{
		"short":    {secret(1), make([]byte, ticket.MinSecret-1)},
		"too many": {secret(1), secret(2), secret(3), secret(4), secret(5)},
	} {
		if _, err := ticket.NewSealer(secrets, lifetime, maxText); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzOpen opens any text, and any text that another node with the same secret could have sealed.
func FuzzOpen(f *testing.F) {
	s := newSealer(f, secret(1))
	f.Add(seal(f, s, full), "ada", []byte("{}"), "lobby")
	f.Add("", "", []byte(nil), "")
	f.Fuzz(func(t *testing.T, text, user string, metadata []byte, room string) {
		if tk, err := s.Open(text, now); (tk == nil) != (err != nil) {
			t.Errorf("ticket %v, error %v", tk, err)
		}
		tk := ticket.Ticket{User: user, Metadata: metadata, Rooms: []string{room}}
		sealed, err := s.Seal(&tk, now)
		if err != nil {
			return
		}
		got, err := s.Open(sealed, now)
		if err != nil {
			t.Fatal(err)
		}
		if got.User != user || !bytes.Equal(got.Metadata, metadata) || got.Rooms[0] != room {
			t.Errorf("sealed %+v, opened %+v", tk, got)
		}
	})
}
