package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"

	"github.com/hearthws/hearth/seal"
)

// FuzzOpen calls Open with arbitrary input. Input that opens was sealed with this key, so it must
// be one of the seeds.
func FuzzOpen(f *testing.F) {
	e := golden(f).Exchanges[0]
	_, server := e.ciphers(f)
	known := map[string]bool{}
	for _, m := range e.Messages {
		sealed := decodeReference(f, m.Data)
		known[string(sealed)] = true
		f.Add(sealed)
	}
	f.Fuzz(func(t *testing.T, sealed []byte) {
		kept := bytes.Clone(sealed)
		got, err := server.Open([]byte("dst"), sealed)
		if !bytes.Equal(sealed, kept) {
			t.Fatal("the input was changed")
		}
		if known[string(sealed)] != (err == nil) {
			t.Fatalf("error %v, known %v", err, known[string(sealed)])
		}
		checkResult(t, got, err, len(sealed)-seal.Overhead)
	})
}

// decodeReference returns the sealed bytes in an object, decoded in a slow and obvious way; nil if
// there are none.
func decodeReference(t testing.TB, object string) []byte {
	t.Helper()
	var parts struct{ IV, CT string }
	if json.Unmarshal([]byte(object), &parts) != nil {
		return nil
	}
	iv, ivErr := base64.StdEncoding.DecodeString(parts.IV)
	ct, ctErr := base64.StdEncoding.DecodeString(parts.CT)
	if ivErr != nil || ctErr != nil || len(iv) != 12 || len(ct) < 16 ||
		base64.StdEncoding.EncodeToString(iv) != parts.IV || base64.StdEncoding.EncodeToString(ct) != parts.CT {
		return nil
	}
	return append(iv, ct...)
}

// checkResult checks the properties of every result.
func checkResult(t *testing.T, got []byte, err error, size int) {
	t.Helper()
	switch {
	case err == nil:
		if len(got) != len("dst")+size {
			t.Fatalf("%d bytes, want %d", len(got)-len("dst"), size)
		}
	case !errors.Is(err, seal.ErrMalformed) && !errors.Is(err, seal.ErrForged):
		t.Fatalf("error %v", err)
	case string(got) != "dst":
		t.Fatalf("dst is %q after %v", got, err)
	}
}

// FuzzOpenData compares both paths of OpenData with encoding/json and a decoder that checks its
// input by encoding again.
func FuzzOpenData(f *testing.F) {
	all := golden(f)
	_, server := all.Exchanges[0].ciphers(f)
	for _, m := range all.Exchanges[0].Messages {
		f.Add([]byte(m.Data))
	}
	for _, v := range all.BadData {
		f.Add([]byte(v.Data))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		kept := bytes.Clone(object)
		got, err := server.OpenData([]byte("dst"), object)
		if !bytes.Equal(object, kept) {
			t.Fatal("the input was changed")
		}
		sealed := decodeReference(t, string(object))
		if (sealed == nil) != errors.Is(err, seal.ErrMalformed) {
			t.Fatalf("%q: error %v, stands for %d bytes", object, err, len(sealed))
		}
		checkResult(t, got, err, len(sealed)-seal.Overhead)
		if sealed == nil {
			return
		}
		want, wantErr := server.Open([]byte("dst"), sealed)
		if !bytes.Equal(got, want) || !errors.Is(err, wantErr) {
			t.Fatalf("%q, %v; want %q, %v", got, err, want, wantErr)
		}
	})
}

// FuzzParsePublicKey checks that a parsed key has the same text again, and can be used.
func FuzzParsePublicKey(f *testing.F) {
	all := golden(f)
	for _, v := range all.BadPublicKeys {
		f.Add(v.Key)
	}
	for _, e := range all.Exchanges {
		f.Add(e.Client.Public)
	}
	key := generate(f)
	f.Fuzz(func(t *testing.T, text string) {
		public, err := seal.ParsePublicKey(text)
		if err != nil {
			if !errors.Is(err, seal.ErrPublicKey) {
				t.Fatal(err)
			}
			return
		}
		if got := public.String(); got != text {
			t.Fatalf("%s became %s", text, got)
		}
		if _, err := key.Derive(public, seal.Salt{}); err != nil {
			t.Fatal(err)
		}
	})
}
