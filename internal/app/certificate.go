package app

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// certificateInterval is the time between two checks of the certificate files. The first
	// handshake after it checks.
	certificateInterval = 5 * time.Second

	// certificateSettleTime is how long changed files must stay the same before they are used or
	// reported, unless the current certificate has expired. While the files are being written, they
	// may hold a certificate without its chain, or a key that does not match.
	certificateSettleTime = time.Second
)

// A certificate holds the certificate of tls-cert and tls-key and loads it again when the files
// change. A renewal therefore needs no signal, and no restart, which would disconnect every client.
// If the new files cannot be used, the current certificate stays.
type certificate struct {
	// Set by newCertificate, then read-only.
	cert, key string // file names
	log       *slog.Logger

	current atomic.Pointer[tls.Certificate]

	mu        sync.Mutex        // guards the fields below
	nextCheck time.Time         // no check before this time
	sum       [sha256.Size]byte // of current
	lastSum   [sha256.Size]byte // of the files at the last check
	lastError string            // the last problem that was logged, if it persists
}

// newCertificate loads the files. It logs to log now and at later checks.
func newCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	pair, sum, err := readPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load the certificate of --tls-cert and the key of --tls-key: %w", err)
	}
	if err := validNow(pair.Leaf); err != nil {
		log.Warn("clients will reject the certificate", "file", cert, "error", err)
	}
	c.sum, c.lastSum = sum, sum
	c.current.Store(pair)
	return c, nil
}

// get implements tls.Config.GetCertificate. Handshakes do not wait for each other, nor for one that
// waits for a slow disk.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		defer c.mu.Unlock()
		c.reloadLocked()
	}
	return c.current.Load(), nil
}

// reloadLocked loads changed files if a check is due. It logs each problem once.
func (c *certificate) reloadLocked() {
	now := time.Now()
	if now.Before(c.nextCheck) {
		return
	}
	c.nextCheck = now.Add(certificateInterval)
	pair, sum, err := readPair(c.cert, c.key)
	settled := sum == c.lastSum
	c.lastSum = sum
	if err == nil && sum == c.sum {
		c.lastError = ""
		return
	}
	if !settled && validNow(c.current.Load().Leaf) == nil {
		c.nextCheck = now.Add(certificateSettleTime)
		return
	}
	if err == nil {
		err = validNow(pair.Leaf)
	}
	switch {
	case err == nil:
		c.current.Store(pair)
		c.sum, c.lastError = sum, ""
		c.log.Info("loaded the new certificate", "file", c.cert, "until", pair.Leaf.NotAfter)
	case err.Error() != c.lastError:
		c.lastError = err.Error()
		c.log.Error("cannot use the new certificate, keeping the current one", "file", c.cert, "error", err,
			"until", c.current.Load().Leaf.NotAfter)
	}
}

// readPair loads a certificate and its key. The sum identifies the contents of the files, even if
// err is not nil.
func readPair(certFile, keyFile string) (pair *tls.Certificate, sum [sha256.Size]byte, err error) {
	cert, err := os.ReadFile(certFile)
	key, keyErr := os.ReadFile(keyFile)
	sum = sha256.Sum256(append(cert, key...))
	if err = cmp.Or(err, keyErr); err != nil {
		return nil, sum, err
	}
	read, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, sum, err
	}
	return &read, sum, nil
}

// validNow reports whether the certificate is outside its validity period, for which clients would
// reject it.
func validNow(leaf *x509.Certificate) error {
	now := time.Now()
	if now.Before(leaf.NotBefore) {
		return fmt.Errorf("it is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("it expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
