package app

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A renewal is a pair of files that a test writes, and the certificate that the server loads from
// them.
type renewal struct {
	t         *testing.T
	cert, key string
	log       bytes.Buffer
	read      *certificate
}

// newRenewal returns a renewal with certificate number 1.
func newRenewal(t *testing.T) *renewal {
	t.Helper()
	dir := t.TempDir()
	r := &renewal{t: t, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	r.write(r.pair(1, -time.Hour, time.Hour))
	var err error
	r.read, err = newCertificate(r.cert, r.key, slog.New(slog.NewTextHandler(&r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pair returns a certificate with a number and a validity relative to now, and its key.
func (r *renewal) pair(number int64, from, to time.Duration) (cert, key []byte) {
	r.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	now := time.Now()
	about := &x509.Certificate{SerialNumber: big.NewInt(number), DNSNames: []string{"localhost"}, NotBefore: now.Add(from), NotAfter: now.Add(to)}
	raw, err := x509.CreateCertificate(rand.Reader, about, about, &private.PublicKey, private)
	if err != nil {
		r.t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		r.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey})
}

func (r *renewal) write(cert, key []byte) {
	r.t.Helper()
	for file, text := range map[string][]byte{r.cert: cert, r.key: key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

// wants waits for later and checks which certificate a handshake gets.
func (r *renewal) wants(what string, number int64, later time.Duration) {
	r.t.Helper()
	time.Sleep(later)
	got, err := r.read.get(nil)
	if err != nil || got.Leaf.SerialNumber.Int64() != number {
		r.t.Fatalf("%s: certificate %v, error %v; want number %d", what, got.Leaf.SerialNumber, err, number)
	}
}

// said checks that the log has one new line that contains text, or no new line if text is empty.
func (r *renewal) said(text string) {
	r.t.Helper()
	lines := strings.Count(r.log.String(), "\n")
	if text == "" && lines > 0 || text != "" && (lines != 1 || !strings.Contains(r.log.String(), text)) {
		r.t.Errorf("want one line with %q; the log has\n%s", text, r.log.String())
	}
	r.log.Reset()
}

// TestCertificateIsReadAgain checks that changed files are loaded after the next check.
func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRenewal(t)
		r.wants("at first", 1, 0)
		r.write(r.pair(2, -time.Hour, time.Hour))
		r.wants("before the next check", 1, certificateInterval-1)
		r.wants("possibly half-written", 1, 1)
		r.wants("not settled", 1, certificateSettleTime-1)
		r.said("")
		r.wants("renewed", 2, 1)
		r.said("loaded the new certificate")
		r.wants("unchanged", 2, time.Minute)
		r.said("")
	})
}

// TestBadCertificateIsRejected checks that unusable files are reported once, and that the current
// certificate stays until they are usable.
func TestBadCertificateIsRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRenewal(t)
		cert, key := r.pair(2, -time.Hour, 24*time.Hour)
		other, _ := r.pair(3, -time.Hour, time.Hour)
		for _, bad := range []struct {
			what, said string
			change     func()
		}{
			{"key of another certificate", "private key does not match", func() { r.write(other, key) }},
			{"half-written", "failed to find any PEM data", func() { r.write(cert[:len(cert)/2], key) }},
			{"empty", "failed to find any PEM data", func() { r.write(cert, nil) }},
			{"expired", "it expired at", func() { r.write(r.pair(4, -time.Hour, -time.Minute)) }},
			{"too early", "it is not valid before", func() { r.write(r.pair(5, time.Hour, 2*time.Hour)) }},
			{"gone", "no such file", func() {
				if err := os.Remove(r.key); err != nil {
					t.Fatal(err)
				}
			}},
		} {
			bad.change()
			r.wants(bad.what+", first check", 1, certificateInterval)
			r.said("")
			r.wants(bad.what, 1, certificateSettleTime)
			r.wants(bad.what+", next check", 1, certificateInterval)
			r.said(bad.said)
		}
		r.write(cert, key)
		r.wants("usable, not settled", 1, certificateInterval)
		r.wants("usable and settled", 2, certificateSettleTime)
		r.said("loaded the new certificate")
	})
}

// TestCertificateBeingWritten checks that a half-written chain is not used, although its beginning
// is a valid certificate.
func TestCertificateBeingWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRenewal(t)
		leaf, key := r.pair(2, -time.Hour, time.Hour)
		chain, _ := r.pair(3, -time.Hour, time.Hour)
		whole := append(leaf, chain...)
		for n := len(leaf); n < len(whole); n += len(chain) / 5 {
			r.write(whole[:n], key)
			r.wants("half-written", 1, certificateInterval)
		}
		r.write(whole, key)
		r.wants("written", 1, certificateSettleTime)
		r.said("")
		r.wants("settled", 2, certificateSettleTime)
		if n := len(r.read.current.Load().Certificate); n != 2 {
			t.Errorf("%d certificates of 2", n)
		}
		r.said("loaded the new certificate")
	})
}

// TestCertificateThatHasExpired checks that new files replace an expired certificate at once,
// although they may still be being written.
func TestCertificateThatHasExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRenewal(t)
		r.write(r.pair(2, -time.Hour, 3*time.Hour))
		r.wants("renewed at the last moment", 2, time.Hour+1)
		r.said("loaded the new certificate")
	})
}

// TestCertificateOfTheStart checks that the server does not start without a valid pair of files,
// and that it starts with an expired certificate and logs a warning: clients decide.
func TestCertificateOfTheStart(t *testing.T) {
	t.Parallel()
	r := newRenewal(t)
	if err := os.WriteFile(r.cert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	if _, err := newCertificate(r.cert, r.key, log); err == nil || !strings.Contains(err.Error(), "--tls-cert") {
		t.Errorf("empty: error %v", err)
	}
	r.said("")
	r.write(r.pair(2, -2*time.Hour, -time.Hour))
	if _, err := newCertificate(r.cert, r.key, log); err != nil {
		t.Errorf("expired: error %v", err)
	}
	r.said("it expired at")
}

// TestHandshakesTogether runs concurrent handshakes while the certificate changes, for the race
// detector.
func TestHandshakesTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRenewal(t)
		for number := int64(2); number < 5; number++ {
			r.write(r.pair(number, -time.Hour, time.Hour))
			r.wants("first check", number-1, certificateInterval)
			time.Sleep(certificateSettleTime)
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if got, err := r.read.get(nil); err != nil || got.Leaf.SerialNumber.Int64() < number-1 {
						t.Errorf("certificate %v, error %v", got.Leaf.SerialNumber, err)
					}
				})
			}
			all.Wait()
			r.wants("afterwards", number, 0)
		}
	})
}
