package seal_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/seal"
)

// vectors is the content of testdata/vectors.json, which testdata/generate.mjs writes with
// WebCrypto.
type vectors struct {
	Exchanges     []exchangeVector
	BadPublicKeys []struct{ Name, Key string }
	BadData       []struct{ Name, Data, Error string }
}

type exchangeVector struct {
	Name           string
	Client, Server struct {
		Private []byte
		Public  string
	}
	Salt     string
	Key      []byte
	Messages []struct {
		Name, Text string
		Times      int
		Data       string
	}
}

func golden(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// ciphers returns the ciphers of both sides.
func (e exchangeVector) ciphers(t testing.TB) (client, server *seal.Cipher) {
	t.Helper()
	salt, err := seal.ParseSalt(e.Salt)
	if err != nil {
		t.Fatal(err)
	}
	clientKey, serverKey := fixed(t, e.Client.Private, e.Client.Public), fixed(t, e.Server.Private, e.Server.Public)
	return derive(t, clientKey, e.Server.Public, salt), derive(t, serverKey, e.Client.Public, salt)
}

func fixed(t testing.TB, d []byte, public string) *seal.PrivateKey {
	t.Helper()
	key, err := seal.FixedKey(d)
	if err != nil {
		t.Fatal(err)
	}
	if got := key.PublicKey().String(); got != public {
		t.Fatalf("public key %s, want %s", got, public)
	}
	return key
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, e := range golden(t).Exchanges {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			client, server := e.ciphers(t)
			block, err := aes.NewCipher(e.Key)
			if err != nil {
				t.Fatal(err)
			}
			// This one takes the IV in front, and FIPS 140 allows it.
			bare, err := cipher.NewGCMWithRandomNonce(block)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range e.Messages {
				want := strings.Repeat(m.Text, m.Times)
				for _, c := range []*seal.Cipher{client, server} {
					if got, err := c.OpenData(nil, []byte(m.Data)); err != nil || string(got) != want {
						t.Errorf("%s: %v, %.100q", m.Name, err, got)
					}
					// The other direction, with the key of WebCrypto, and IV, ciphertext and tag in
					// the order that WebCrypto uses.
					object, err := c.AppendData(nil, []byte(want))
					var parts struct{ IV, CT []byte }
					if err := errors.Join(err, json.Unmarshal(object, &parts)); err != nil {
						t.Fatal(err)
					}
					if got, err := bare.Open(nil, nil, append(parts.IV, parts.CT...), nil); err != nil || string(got) != want {
						t.Errorf("%s, sealed here: %v, %.100q", m.Name, err, got)
					}
				}
			}
		})
	}
}

func TestBadPublicKeys(t *testing.T) {
	t.Parallel()
	for _, v := range golden(t).BadPublicKeys {
		if _, err := seal.ParsePublicKey(v.Key); !errors.Is(err, seal.ErrPublicKey) {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

func TestBadData(t *testing.T) {
	t.Parallel()
	all := golden(t)
	_, server := all.Exchanges[0].ciphers(t)
	for _, v := range all.BadData {
		want, known := map[string]error{"malformed": seal.ErrMalformed, "forged": seal.ErrForged}[v.Error]
		if got, err := server.OpenData([]byte("dst"), []byte(v.Data)); !known || !errors.Is(err, want) || string(got) != "dst" {
			t.Errorf("%s: %v, %q, want %s", v.Name, err, got, v.Error)
		}
	}
}

// node returns the path of Node.js. If it is not installed, the tests against WebCrypto itself are
// skipped with a message; with CI=true that is a failure.
func node(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err == nil {
		return path
	}
	const missing = "Node.js not found: WebCrypto tests not run (install nodejs, 20 or later)"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// TestVectorsAreCurrent runs the program that wrote the vectors.
func TestVectorsAreCurrent(t *testing.T) {
	t.Parallel()
	program := exec.CommandContext(t.Context(), node(t), "generate.mjs")
	program.Dir, program.Stderr = "testdata", os.Stderr
	got, err := program.Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("testdata/vectors.json is not what testdata/generate.mjs writes: node generate.mjs > vectors.json")
	}
}

// TestLive exchanges keys and messages with a client process.
func TestLive(t *testing.T) {
	t.Parallel()
	in, out := startClient(t)
	var hello struct{ PublicKey string }
	if err := out.Decode(&hello); err != nil {
		t.Fatal(err)
	}
	key, salt := generate(t), seal.NewSalt()
	c := derive(t, key, hello.PublicKey, salt)

	texts := []string{"", `{"event":"heartbeat"}`, `{"event":"ü","data":"世界 🦊 \u2028"}`, strings.Repeat("64 KiB..", 8192)}
	for n := range 70 {
		texts = append(texts, strings.Repeat("x", n))
	}
	request := struct {
		PublicKey string            `json:"publicKey"`
		Salt      string            `json:"salt"`
		Opened    []json.RawMessage `json:"opened"`
		Sealed    []string          `json:"sealed"`
	}{PublicKey: key.PublicKey().String(), Salt: salt.String(), Sealed: texts}
	for _, text := range texts {
		envelope, err := c.AppendEnvelope(nil, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		request.Opened = append(request.Opened, envelope)
	}
	if err := json.NewEncoder(in).Encode(request); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Opened []string
		Sealed []json.RawMessage
	}
	if err := out.Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Opened) != len(texts) || len(answer.Sealed) != len(texts) {
		t.Fatalf("%d opened, %d sealed, want %d", len(answer.Opened), len(answer.Sealed), len(texts))
	}
	for i, want := range texts {
		if answer.Opened[i] != want {
			t.Errorf("the client opened %.100q, want %.100q", answer.Opened[i], want)
		}
		if got, err := c.OpenData(nil, answer.Sealed[i]); err != nil || string(got) != want {
			t.Errorf("the client sealed %.100q, want %.100q: %v", got, want, err)
		}
	}
}

// startClient starts a client. It exits when its input is closed, at the end of the test.
func startClient(t *testing.T) (io.Writer, *json.Decoder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	program := exec.CommandContext(ctx, node(t), "live.mjs")
	program.Dir, program.Stderr = "testdata", os.Stderr
	in, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), program.Wait()); err != nil {
			t.Errorf("end the client: %v", err)
		}
	})
	return in, json.NewDecoder(bufio.NewReader(out))
}
