package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A TLS has what a client needs to connect with TLS to a server started by StartTLS. Addr of the
// server remains its address without TLS.
type TLS struct {
	Addr   string
	Roots  *x509.CertPool  // trust the server
	Client tls.Certificate // trusted by the server
}

// StartTLS starts a server that also accepts TLS, with a certificate for 127.0.0.1 from its own
// authority. With the option "tls-auth-clients no" it requires no client certificate.
func StartTLS(tb testing.TB, options ...string) (*Server, TLS) {
	tb.Helper()
	authority, key := certificate(tb, nil, nil)
	server, serverKey := certificate(tb, authority, key)
	client, clientKey := certificate(tb, authority, key)
	t := TLS{Roots: x509.NewCertPool(), Client: tls.Certificate{Certificate: [][]byte{client.Raw}, PrivateKey: clientKey}}
	t.Roots.AddCert(authority)
	private, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		tb.Fatal(err)
	}
	options = append([]string{
		"tls-port {port}",
		"tls-ca-cert-file " + writePEM(tb, "CERTIFICATE", authority.Raw),
		"tls-cert-file " + writePEM(tb, "CERTIFICATE", server.Raw),
		"tls-key-file " + writePEM(tb, "PRIVATE KEY", private),
	}, options...)
	s := Start(tb, options...)
	t.Addr = s.Other
	return s, t
}

// certificate makes a certificate for 127.0.0.1, or the certificate of an authority if it has no
// parent.
func certificate(tb testing.TB, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "redistest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if parent == nil {
		about.IsCA, about.BasicConstraintsValid, about.KeyUsage = true, true, x509.KeyUsageCertSign
		about.Subject.CommonName = "redistest authority"
		parent, parentKey = about, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, about, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	made, err := x509.ParseCertificate(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return made, key
}

func writePEM(tb testing.TB, kind string, raw []byte) (path string) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "file.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
