package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hearthws/hearth/seal"
)

// exchange runs the key exchange of a client and a server; both ciphers have the same key.
func exchange(t testing.TB) (client, server *seal.Cipher) {
	t.Helper()
	clientKey, serverKey := generate(t), generate(t)
	salt, err := seal.ParseSalt(seal.NewSalt().String())
	if err != nil {
		t.Fatal(err)
	}
	return derive(t, clientKey, serverKey.PublicKey().String(), salt), derive(t, serverKey, clientKey.PublicKey().String(), salt)
}

func generate(t testing.TB) *seal.PrivateKey {
	t.Helper()
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func derive(t testing.TB, key *seal.PrivateKey, peer string, salt seal.Salt) *seal.Cipher {
	t.Helper()
	public, err := seal.ParsePublicKey(peer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := key.Derive(public, salt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// data returns the data of an encrypted message, parsed by encoding/json.
func data(t testing.TB, envelope []byte) json.RawMessage {
	t.Helper()
	var e struct {
		Event string
		Data  json.RawMessage
	}
	if err := json.Unmarshal(envelope, &e); err != nil || e.Event != "encrypted" {
		t.Fatalf("%v: %.100q", err, envelope)
	}
	return e.Data
}

// TestEnvelopes sends messages of many lengths in both directions, with different content in front
// of them.
func TestEnvelopes(t *testing.T) {
	t.Parallel()
	client, server := exchange(t)
	lengths := []int{1023, 1024, 1025, 65536, 1 << 20}
	for n := range 200 {
		lengths = append(lengths, n)
	}
	for i, n := range lengths {
		from, to := server, client
		if i%2 == 1 {
			from, to = client, server
		}
		text := bytes.Repeat([]byte{'x', 0, 0xff}, n/3+1)[:n]
		before := slices.Clip([]byte("before"))
		envelope, err := from.AppendEnvelope(before, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(envelope) - len(before); got != seal.EnvelopeSize(n) || !bytes.HasPrefix(envelope, before) {
			t.Fatalf("%d bytes are sealed to %d, want %d; begins with %q", n, got, seal.EnvelopeSize(n), envelope[:10])
		}
		inner := data(t, envelope[len(before):])
		if len(inner) != seal.DataSize(n) {
			t.Fatalf("%d bytes are sealed to data of %d, want %d", n, len(inner), seal.DataSize(n))
		}
		kept := bytes.Clone(inner)
		got, err := to.OpenData(before, inner)
		if err != nil || !bytes.Equal(got, append(before, text...)) {
			t.Fatalf("%d bytes: %v, %.100q", n, err, got)
		}
		if !bytes.Equal(inner, kept) {
			t.Fatal("the data was changed")
		}
	}
}

func TestAppendDataAndSealed(t *testing.T) {
	t.Parallel()
	client, server := exchange(t)
	text := []byte(`{"event":"chat"}`)
	object, err := server.AppendData(nil, text)
	if err != nil || len(object) != seal.DataSize(len(text)) {
		t.Fatalf("%v: %s", err, object)
	}
	if got, err := client.OpenData(nil, object); err != nil || string(got) != string(text) {
		t.Fatalf("%v: %s", err, got)
	}
	sealed, err := client.AppendSealed([]byte("dst"), text)
	if err != nil || len(sealed) != len("dst")+seal.SealedSize(len(text)) {
		t.Fatalf("%v: %d bytes", err, len(sealed))
	}
	sealed = sealed[len("dst"):]
	if got, err := server.Open([]byte("dst"), sealed); err != nil || string(got) != "dst"+string(text) {
		t.Fatalf("%v: %s", err, got)
	}
	if got, err := server.Open(sealed[:0], sealed); err != nil || string(got) != string(text) {
		t.Fatalf("in place: %v: %s", err, got)
	}
}

// TestOpenDataForms opens data in forms that JSON allows and JSON.stringify does not write.
func TestOpenDataForms(t *testing.T) {
	t.Parallel()
	client, server := exchange(t)
	object, err := server.AppendData(nil, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	var parts struct{ IV, CT string }
	if err := json.Unmarshal(object, &parts); err != nil {
		t.Fatal(err)
	}
	iv, ct := `"iv":"`+parts.IV+`"`, `"ct":"`+parts.CT+`"`
	var escaped strings.Builder
	for _, c := range parts.CT {
		fmt.Fprintf(&escaped, `\u%04x`, c)
	}
	for _, form := range []string{
		"{" + iv + "," + ct + "}",
		"{" + ct + "," + iv + "}",
		" { " + iv + " ,\n\t" + ct + " }\r\n",
		"{" + iv + "," + ct + `,"v":{"a":[1]}}`,
		"{" + iv + `,"ct":"` + strings.ReplaceAll(parts.CT, "/", `\/`) + `"}`,
		"{" + iv + `,"ct":"` + escaped.String() + `"}`,
		`{"ct":"",` + iv + "," + ct + "}",
		"{" + iv + `,"ct":"AAAA",` + ct + "}",
	} {
		if got, err := client.OpenData(nil, []byte(form)); err != nil || string(got) != "text" {
			t.Errorf("%s: %v, %q", form, err, got)
		}
	}
}

// TestErrorsKeepDst checks that dst is returned unchanged together with an error, which users of
// append functions rely on.
func TestErrorsKeepDst(t *testing.T) {
	t.Parallel()
	client, server := exchange(t)
	object, err := server.AppendData(nil, []byte("the secret text"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := byte('A')
	if object[len(object)-10] == flipped {
		flipped = 'B'
	}
	object[len(object)-10] = flipped
	dst := append(make([]byte, 0, 1000), "dst"...)
	got, err := client.OpenData(dst, object)
	if !errors.Is(err, seal.ErrForged) || string(got) != "dst" {
		t.Errorf("%v, %q", err, got)
	}
	if bytes.Contains(dst[:cap(dst)], []byte("secret")) {
		t.Error("the buffer still holds plaintext of a forged message")
	}
	if got, err := client.Open(dst, make([]byte, seal.Overhead-1)); !errors.Is(err, seal.ErrMalformed) || string(got) != "dst" {
		t.Errorf("%v, %q", err, got)
	}
}

// TestExhausted reaches the limit of a key: the last message passes, and nothing after it, in
// either direction.
func TestExhausted(t *testing.T) {
	t.Parallel()
	client, server := exchange(t)
	object, err := client.AppendData(nil, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	server.Use(seal.MaxMessages - 2)
	if _, err := server.OpenData(nil, object); err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(object, []byte(`"ct":"`), []byte(`"ct":"AAAA`), 1)
	if _, err := server.OpenData(nil, forged); !errors.Is(err, seal.ErrForged) {
		t.Fatalf("a forged message: %v", err)
	}
	if _, err := server.AppendEnvelope(nil, []byte("last")); err != nil {
		t.Fatalf("a forged message was counted: %v", err)
	}
	for range 2 {
		if got, err := server.AppendEnvelope([]byte("dst"), nil); !errors.Is(err, seal.ErrExhausted) || string(got) != "dst" {
			t.Errorf("envelope: %v, %q", err, got)
		}
		if got, err := server.AppendSealed([]byte("dst"), nil); !errors.Is(err, seal.ErrExhausted) || string(got) != "dst" {
			t.Errorf("sealed: %v, %q", err, got)
		}
		if got, err := server.OpenData([]byte("dst"), object); !errors.Is(err, seal.ErrExhausted) || string(got) != "dst" {
			t.Errorf("open: %v, %q", err, got)
		}
	}
}

// TestManyGoroutines seals and opens with the same two ciphers concurrently. No IV may occur twice.
func TestManyGoroutines(t *testing.T) {
	t.Parallel()
	const goroutines, messages = 8, 200
	client, server := exchange(t)
	ivs := make([][]string, goroutines)
	var wg sync.WaitGroup // each goroutine ends after its messages
	for g := range goroutines {
		wg.Go(func() {
			text := bytes.Repeat([]byte{byte('a' + g)}, 300)
			for range messages {
				sealed, err := server.AppendSealed(nil, text)
				if err != nil {
					t.Error(err)
					return
				}
				ivs[g] = append(ivs[g], string(sealed[:12]))
				if got, err := client.Open(nil, sealed); err != nil || !bytes.Equal(got, text) {
					t.Errorf("%v, %q", err, got)
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(ivs...)
	slices.Sort(all)
	if got := len(slices.Compact(all)); got != goroutines*messages {
		t.Errorf("%d different IVs of %d", got, goroutines*messages)
	}
}

// TestSalts checks that other salts give other keys, and that only canonical text is accepted.
func TestSalts(t *testing.T) {
	t.Parallel()
	key, peer := generate(t), generate(t).PublicKey()
	a, err := key.Derive(peer, seal.NewSalt())
	if err != nil {
		t.Fatal(err)
	}
	b, err := key.Derive(peer, seal.NewSalt())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := a.AppendSealed(nil, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(nil, sealed); !errors.Is(err, seal.ErrForged) {
		t.Errorf("another salt: %v", err)
	}
	good := seal.NewSalt().String()
	for _, text := range []string{
		"", good[:43], good + "=", good[:40], good[:43] + "\n", good[:42] + "==", "-" + good[1:],
		base64.StdEncoding.EncodeToString(make([]byte, 31)), base64.StdEncoding.EncodeToString(make([]byte, 33)),
		strings.Repeat("A", 44), strings.Repeat("A", 42) + "B=",
	} {
		if _, err := seal.ParseSalt(text); !errors.Is(err, seal.ErrSalt) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestEncodeInPlace compares the encoder with the standard library's.
func TestEncodeInPlace(t *testing.T) {
	t.Parallel()
	random := rand.NewChaCha8([32]byte{})
	for n := range 1000 {
		src := make([]byte, n)
		_, _ = random.Read(src) // never returns an error
		want := base64.StdEncoding.AppendEncode(nil, src)
		got := make([]byte, len(want))
		copy(got[len(got)-n:], src)
		seal.EncodeInPlace(got, n)
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %s, want %s", n, got, want)
		}
	}
}

// TestNoAllocations checks that messages that fit into dst need no allocation.
func TestNoAllocations(t *testing.T) {
	client, server := exchange(t)
	text := make([]byte, 1000)
	buf, opened := make([]byte, 0, seal.EnvelopeSize(len(text))), make([]byte, 0, 2000)
	object, err := server.AppendData(nil, text)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"AppendEnvelope": func() error { _, err := server.AppendEnvelope(buf, text); return err },
		"AppendSealed":   func() error { _, err := server.AppendSealed(buf, text); return err },
		"OpenData":       func() error { _, err := client.OpenData(opened, object); return err },
	} {
		if n := testing.AllocsPerRun(100, func() { err = f() }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, %v", name, n, err)
		}
	}
}
