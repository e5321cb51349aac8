package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth"
)

// TestNewCredentials checks that a client can replace its credentials on an open connection, and
// what the application sees of it, unencrypted and encrypted.
func TestNewCredentials(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		requests := make(chan hearth.AuthRequest[credentials], 10)
		first := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		second := first.Add(time.Hour)
		r := start(t, config{
			Transport: transport, Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional},
			Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				requests <- req
				id, err := accept(ctx, req)
				if id.ExpiresAt = first; req.Again {
					id.ExpiresAt = second
				}
				switch req.Credentials.Do {
				case "reject":
					err = fmt.Errorf("no: %w", hearth.ErrRejected)
				case "error":
					err = errors.New("no database")
				}
				return id, err
			},
		})
		for _, encrypted := range []bool{false, true} {
			s := r.encryptedPeer()
			key := ""
			if encrypted {
				key = `,"publicKey":"` + s.key.PublicKey().String() + `"`
			}
			s.text(`{"event":"authenticate","data":{"as":"ada","name":"one"` + key + `},"hearth":{"version":1}}`)
			wants := s.wants
			if encrypted {
				s.takeKeys()
				wants = s.wantsSealed
			} else {
				s.welcome()
			}
			if req := <-requests; req.Again || req.UserID != "" {
				t.Errorf("the first request: %+v", req)
			}
			c := r.client(s.peer)
			if c.Metadata().Name != "one" || !c.ExpiresAt().Equal(first) {
				t.Errorf("at first: %v until %v", c.Metadata(), c.ExpiresAt())
			}
			s.text(`{"event":"authenticate","data":{"as":"ada","name":"two"},"id":"1"}`)
			wants(`{"event":"authenticate","data":{"expires":"` + second.UTC().Format("2006-01-02T15:04:05.000Z") + `"},"id":"1"}`)
			if req := <-requests; !req.Again || req.UserID != "ada" || req.ClientID != c.ID() || req.Credentials.Name != "two" {
				t.Errorf("the second request: %+v", req)
			}
			if c.Metadata().Name != "two" || !c.ExpiresAt().Equal(second) || r.client(s.peer) != c {
				t.Errorf("then: %v until %v", c.Metadata(), c.ExpiresAt())
			}
			s.text(`{"event":"authenticate","data":{"as":"ada"},"id":"2"}`)
			wants(`{"event":"error","data":{"message":"Try again later","code":"busy"},"id":"2"}`)
		}
		for i, do := range []string{"reject", "error", "", "undecodable"} {
			p := r.extended("ada")
			<-requests
			data, text := fmt.Sprintf(`{"as":"bob","do":%q}`, do), "Authentication failed"
			switch do {
			case "error":
				text = "Authentication error"
			case "undecodable":
				data = `[]`
			}
			p.text(fmt.Sprintf(`{"event":"authenticate","data":%s,"id":%d}`, data, i))
			p.wants(fmt.Sprintf(`{"event":"error","data":{"message":%q},"id":%d}`, text, i))
			if c := r.client(p); c.UserID() != "ada" || c.Metadata().Name != "ada" || !c.ExpiresAt().Equal(first) {
				t.Errorf("%q: %v until %v", do, c.Metadata(), c.ExpiresAt())
			}
		}
		if s := r.Stats(); s.Authenticated != 6 || s.Reauthenticated != 2 || s.ReauthRejected != 3 || s.AuthRejected != 0 || s.CallbackErrors != 1 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestExpiredClients checks that clients are closed when their credentials expire, and that
// clients with the extension are told before.
func TestExpiredClients(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{
			Transport: transport,
			Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				id, err := accept(ctx, req)
				id.ExpiresAt = time.Now().Add(time.Second)
				return id, err
			},
		})
		p, q := r.extended("ada"), r.member("bob")
		if got := p.next().text; !strings.HasPrefix(got, `{"event":"hearth:expiring","data":{"expires":"`) {
			t.Errorf("got %s", got)
		}
		p.wantsClose(4005, "Credentials expired")
		q.wantsClose(4005, "Credentials expired")
		if n := r.Stats().Expired; n != 2 {
			t.Errorf("%d clients expired", n)
		}
	})
}
