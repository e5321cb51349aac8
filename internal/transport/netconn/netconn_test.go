package netconn_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/netconn"
	"github.com/hearthws/hearth/internal/transport/transporttest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if transporttest.Drain() {
		return
	}
	goleak.VerifyTestMain(m)
}

var tcp = transporttest.Backend{
	New:       open,
	Dial:      transporttest.TCP,
	HalfClose: true,
	Reset:     transporttest.Reset,
}

func BenchmarkFanOut(b *testing.B) { transporttest.BenchmarkFanOut(b, tcp) }
func BenchmarkWake(b *testing.B)   { transporttest.BenchmarkWake(b, tcp) }
func BenchmarkEcho(b *testing.B)   { transporttest.BenchmarkEcho(b, tcp) }

func open(cfg transport.Config) (transport.Transport, error) { return netconn.New(cfg) }

func TestTCP(t *testing.T) { transporttest.Run(t, tcp) }

func TestPipe(t *testing.T) {
	transporttest.Run(t, transporttest.Backend{
		New: open,
		Dial: func(testing.TB) (server, client net.Conn) {
			return net.Pipe()
		},
	})
}

func TestTLS(t *testing.T) {
	cfg := selfSigned(t)
	// The default key exchange is slow with the race detector.
	clientConfig := &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}
	transporttest.Run(t, transporttest.Backend{
		New: open,
		Dial: func(t testing.TB) (server, client net.Conn) {
			s, c := transporttest.TCP(t)
			ts, tc := tls.Server(s, cfg), tls.Client(c, clientConfig)
			done := make(chan error)
			// Ended by the handshake of the client, or its failure.
			go func() { done <- ts.Handshake() }()
			if err := errors.Join(tc.Handshake(), <-done); err != nil {
				t.Error(err)
			}
			return ts, tc
		},
		HalfClose: true,
		Reset:     func(client net.Conn) { transporttest.Reset(client.(*tls.Conn).NetConn()) },
		Clients:   100,
	})
}

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
