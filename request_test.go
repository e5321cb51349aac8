package hearth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// taken is what the tests' application takes from a request.
type taken struct{ session, lang string }

// TestFromRequest: what an application takes from the request reaches Authenticate, on each way to serve.
func TestFromRequest(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{
			Transport: transport,
			Upgrade: hearth.Upgrade{FromRequest: func(r *http.Request) (any, error) {
				cookie, err := r.Cookie("session")
				if err != nil {
					return nil, hearth.ErrRejected
				}
				return taken{cookie.Value, r.URL.Query().Get("lang")}, nil
			}},
			Authenticate: func(_ context.Context, r hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				v := r.FromRequest.(taken)
				return hearth.Identity[profile]{UserID: v.session, Metadata: profile{v.lang}}, nil
			},
		})
		if resp := r.knock("/ws", nil); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("without a cookie: %v", resp.Status)
		}
		if n := r.Stats().HandshakeRefused; n != 1 {
			t.Errorf("%d handshakes refused", n)
		}
		header := http.Header{"Cookie": {"session=ada"}}
		conn, _, err := websocket.Dial(t.Context(), "ws://"+r.addr+"/ws?lang=en", &websocket.DialOptions{HTTPHeader: header})
		must(t, err)
		defer conn.CloseNow()
		must(t, conn.Write(t.Context(), websocket.MessageText, []byte(`{"event":"authenticate"}`)))
		_, b, err := conn.Read(t.Context())
		must(t, err)
		if !strings.Contains(string(b), `"userId":"ada"`) {
			t.Errorf("got %s", b)
		}
		if c := r.Local().Clients(hearth.ToUser("ada")); len(c) != 1 || c[0].Metadata().Name != "en" {
			t.Errorf("clients %v", c)
		}
	})
}

// TestFromRequestFails: the handshake of a request that the application cannot read fails closed, and is reported.
func TestFromRequestFails(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Upgrade: hearth.Upgrade{FromRequest: func(*http.Request) (any, error) {
			return nil, errors.New("database is down")
		}}})
		if resp := r.knock("/ws", nil); resp.StatusCode != http.StatusInternalServerError {
			t.Errorf("got %v", resp.Status)
		}
		if n := r.Stats().CallbackErrors; n == 0 {
			t.Error("the failure was not counted")
		}
	})
}
