package jwtauth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthws/hearth/internal/app/fetch"
)

// The sizes of an RSA key, in bits. Larger keys make each verification slow.
const (
	minRSA = 2048
	maxRSA = 8192
)

// maxKeys is the largest number of keys in a key set or a file: without a key id, each is tried.
const maxKeys = 100

// Algorithms returns the algorithms that a Config may have.
func Algorithms() []string {
	return []string{
		"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	}
}

// checkKeys returns an error if a key is too weak, or cannot be used with any of the algorithms.
func (c Config) checkKeys() error {
	for _, s := range c.Secrets {
		for _, a := range c.Algorithms {
			if least := map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}[a]; len(s) < least {
				return fmt.Errorf("the secret has %d bytes, and %s needs at least %d: make one with openssl rand -hex %d", len(s), a, least, least)
			}
		}
	}
	if len(c.PublicKeys) > maxKeys {
		return fmt.Errorf("there are %d public keys, limit %d", len(c.PublicKeys), maxKeys)
	}
	for _, k := range c.PublicKeys {
		fits, err := algorithmsOf(k)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(fits, func(a string) bool { return slices.Contains(c.Algorithms, a) }) {
			return fmt.Errorf("a public key can be used with %v only, and the accepted algorithms are %v: add one of them", fits, c.Algorithms)
		}
	}
	return nil
}

// algorithmsOf returns the algorithms that can be used with a public key.
func algorithmsOf(key crypto.PublicKey) ([]string, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, fmt.Errorf("an RSA key has %d bits; it can have %d to %d", bits, minRSA, maxRSA)
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, nil
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}, nil
		case 384:
			return []string{"ES384"}, nil
		case 521:
			return []string{"ES512"}, nil
		}
		return nil, fmt.Errorf("a key is on the curve %s, which is not supported", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	}
	return nil, fmt.Errorf("a key of type %T is not supported", key)
}

// ParsePublicKeys returns all public keys of a PEM text, from blocks of the types PUBLIC KEY, RSA
// PUBLIC KEY and CERTIFICATE. Any other block is an error: a private key does not belong on a
// server that only verifies.
func ParsePublicKeys(text []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		key, err := publicKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || len(bytes.TrimSpace(text)) > 0 {
		return nil, errors.New("not public keys in PEM, as in -----BEGIN PUBLIC KEY-----")
	}
	return keys, nil
}

func publicKey(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse a public key: %w", err)
		}
		return key, nil
	case "RSA PUBLIC KEY":
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse an RSA public key: %w", err)
		}
		return key, nil
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse a certificate: %w", err)
		}
		return cert.PublicKey, nil
	}
	if strings.Contains(block.Type, "PRIVATE KEY") {
		return nil, errors.New("it has a private key: the server needs only the public key, as openssl pkey -pubout writes it")
	}
	return nil, fmt.Errorf("it has a block of type %.40q, which is not a public key", block.Type)
}

// CheckURL checks the URL of a key set: it must be https, unless the host is this machine.
func CheckURL(s string) error {
	return fetch.CheckURL(s, "https://issuer.example/.well-known/jwks.json", false)
}
