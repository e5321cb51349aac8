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
	// certificateInterval is the time between two looks at the files of a certificate: the first handshake after it has one.
	certificateInterval = 5 * time.Second

	// certificateSettleTime is for how long files that have changed must be the same before they are used, or complained of, unless
	// the certificate before has expired. While they are being written they may be a good one without its chain, or have the key
	// of another.
	certificateSettleTime = time.Second
)

// A certificate is that of tls-cert and tls-key. It is read again when the files have changed, so that a renewal needs neither a
// restart, which would cost every client its connection, nor a signal. What can't be used is not: then the one before stays.
type certificate struct {
	// Set by newCertificate, then read-only.
	cert, key string // files
	log       *slog.Logger

	current atomic.Pointer[tls.Certificate]

	mu        sync.Mutex        // guards the fields below
	nextCheck time.Time         // not looked at before
	sum       [sha256.Size]byte // of current
	lastSum   [sha256.Size]byte // of the files at the last look
	lastError string            // what is wrong with the files, as far as it has been said
}

// newCertificate reads the files. Later on it logs to log.
func newCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	pair, sum, err := readPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load the certificate of --tls-cert and the key of --tls-key: %w", err)
	}
	if err := validNow(pair.Leaf); err != nil {
		log.Warn("clients will refuse the certificate", "file", cert, "error", err)
	}
	c.sum, c.lastSum = sum, sum
	c.current.Store(pair)
	return c, nil
}

// get is for tls.Config.GetCertificate. Handshakes do not wait for each other, or for one that waits for a slow disk.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		defer c.mu.Unlock()
		c.reloadLocked()
	}
	return c.current.Load(), nil
}

// reloadLocked takes over what is new in the files, if it is time to look. What is wrong with them it says once.
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
		c.log.Info("the certificate was read again", "file", c.cert, "until", pair.Leaf.NotAfter)
	case err.Error() != c.lastError:
		c.lastError = err.Error()
		c.log.Error("the new certificate can't be used, and the one before stays", "file", c.cert, "error", err,
			"until", c.current.Load().Leaf.NotAfter)
	}
}

// readPair reads a certificate and its key; the sum tells what was read from anything else, with an error too.
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

// validNow reports why clients would refuse a certificate now, whatever else they may have against it.
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
