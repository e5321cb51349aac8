package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hearthws/hearth/seal"
)

// sealedClient makes the messages of one encrypted client: `connected`, and messages with these
// numbers.
func sealedClient(t *testing.T, key *seal.PrivateKey, numbers ...int) [][]byte {
	t.Helper()
	server, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	salt := seal.NewSalt()
	cipher, err := server.Derive(key.PublicKey(), salt)
	if err != nil {
		t.Fatal(err)
	}
	messages := [][]byte{fmt.Appendf(nil, `{"event":"connected","data":{"id":"c","serverPublicKey":%q,"salt":%q}}`, server.PublicKey(), salt)}
	for _, n := range numbers {
		sealed, err := cipher.AppendEnvelope(nil, fmt.Appendf(nil, `{"event":"m","data":{"p":"%0*d"}}`, messageSize, n))
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, sealed)
	}
	return messages
}

func newKey(t *testing.T) *seal.PrivateKey {
	t.Helper()
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTranscriptIsOpened(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	tr := transcript{0: sealedClient(t, key, 5, 6, 7), 1: sealedClient(t, key, 7, 5, 6)}
	opened, reordered, err := tr.open(key, 2, 5, 3)
	if err != nil {
		t.Fatal(err)
	}
	if opened != 6 || reordered != 1 {
		t.Errorf("opened %d, %d out of order, want 6 and 1: message 7 came before two others", opened, reordered)
	}
}

func TestTranscriptFaults(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	good := func() [][]byte { return sealedClient(t, key, 0, 1, 2) }
	mine := good()
	replaced := func(i int, message string) [][]byte {
		m := good()
		m[i] = []byte(message)
		return m
	}
	for name, tc := range map[string]struct {
		messages [][]byte
		want     string
	}{
		"lost":             {good()[:3], "3 messages, want `connected` and 3"},
		"one too many":     {append(good(), good()[1]), "5 messages"},
		"twice":            {sealedClient(t, key, 0, 1, 1), "number 1 is not one of 3"},
		"another number":   {sealedClient(t, key, 0, 1, 3), "number 3 is not one of 3"},
		"unencrypted":      {replaced(2, `{"event":"m","data":{"p":"x"}}`), `unencrypted: the event is "m"`},
		"another's":        {append([][]byte(nil), mine[0], mine[1], mine[2], good()[3]), "message cannot be decrypted with this key"},
		"no connected":     {replaced(0, `{"event":"m"}`), `the event is "m"`},
		"without salt":     {replaced(0, `{"event":"connected","data":{"serverPublicKey":"`+key.PublicKey().String()+`"}}`), "invalid salt"},
		"without a key":    {replaced(0, `{"event":"connected"}`), "invalid public key"},
		"not JSON":         {replaced(1, `{`), "unexpected end"},
		"encrypted rubble": {replaced(1, `{"event":"encrypted","data":{"iv":"","ct":""}}`), "malformed sealed message"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := transcript{4: tc.messages}.open(key, 1, 0, 3)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
	if _, _, err := (transcript{4: good()}).open(key, 2, 0, 3); err == nil {
		t.Error("a client that is missing goes unnoticed")
	}
}

// TestTranscriptWithOtherContent checks a well-encrypted message whose content is not a number.
func TestTranscriptWithOtherContent(t *testing.T) {
	t.Parallel()
	key, server, salt := newKey(t), newKey(t), seal.NewSalt()
	cipher, err := server.Derive(key.PublicKey(), salt)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{
		`{"event":"m","data":{"p":"1"}}`,
		`{"event":"n","data":{"p":"` + strings.Repeat("0", messageSize) + `"}}`,
		`{"event":"m","data":{"p":"` + strings.Repeat("x", messageSize) + `"}}`,
	} {
		sealed, err := cipher.AppendEnvelope(nil, []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := openMessage(cipher, sealed); err == nil {
			t.Errorf("%s is taken for message %d", plain, n)
		}
	}
}

func TestParseTranscript(t *testing.T) {
	t.Parallel()
	piece := func(client uint32, text string, last bool) []byte {
		length := uint32(len(text))
		if last {
			length |= 1 << 31
		}
		b := binary.LittleEndian.AppendUint32(nil, client)
		return append(binary.LittleEndian.AppendUint32(b, length), text...)
	}
	var data []byte
	for _, p := range [][]byte{piece(1, "on", false), piece(2, "other", true), piece(1, "e", true), piece(1, "", true)} {
		data = append(data, p...)
	}
	tr, err := parseTranscript(data)
	if err != nil {
		t.Fatal(err)
	}
	if one, two := fmt.Sprintf("%q", tr[1]), fmt.Sprintf("%q", tr[2]); one != `["one" ""]` || two != `["other"]` {
		t.Errorf("got %s and %s", one, two)
	}
	for name, cut := range map[string][]byte{"header": data[:4], "piece": data[:9], "message": data[:10]} {
		if _, err := parseTranscript(cut); !errors.Is(err, errTranscript) {
			t.Errorf("cut in a %s: error %v", name, err)
		}
	}
}

func TestMeasureAES(t *testing.T) {
	t.Parallel()
	us, err := measureAES()
	if err != nil {
		t.Fatal(err)
	}
	if us <= 0 {
		t.Errorf("%g µs", us)
	}
}
