package hearth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

// callbacks makes the untyped callbacks of the typed ones: here, and only here, does anything know A and M.
func (c Config[A, M]) callbacks() session.Callbacks {
	calls := session.Callbacks{
		Authenticate: func(ctx context.Context, s *session.Session, data []byte) (session.Identity, error) {
			r := AuthRequest[A]{ClientID: s.ID(), RemoteAddr: s.RemoteAddr(), Subprotocol: s.Subprotocol(), Raw: data}
			if err := json.Unmarshal(data, &r.Credentials); err != nil {
				return session.Identity{}, fmt.Errorf("%w: decode credentials: %w", ErrRejected, err)
			}
			id, err := c.Authenticate(ctx, r)
			if err != nil {
				return session.Identity{}, err
			}
			client := &Client[M]{s: s, user: id.UserID, metadata: id.Metadata}
			return session.Identity{User: id.UserID, Value: client}, nil
		},
	}
	c.encryption(&calls)
	if c.ValidateRooms != nil {
		calls.ValidateRooms = func(ctx context.Context, s *session.Session, rooms []string) ([]string, error) {
			return c.ValidateRooms(ctx, clientOf[M](s), rooms)
		}
	}
	if c.Connected != nil {
		calls.Connected = func(ctx context.Context, s *session.Session) { c.Connected(ctx, clientOf[M](s)) }
	}
	if c.Message != nil {
		calls.Message = func(ctx context.Context, s *session.Session, e protocol.Envelope) error {
			return c.Message(ctx, clientOf[M](s), Message{Event: e.Event, Data: e.Data, ID: e.ID})
		}
	}
	if c.Disconnected != nil {
		calls.Disconnected = func(ctx context.Context, s *session.Session, code int, reason string) {
			c.Disconnected(ctx, clientOf[M](s), code, reason)
		}
	}
	return calls
}

// encryption adds the callbacks that have to do with it.
func (c Config[A, M]) encryption(calls *session.Callbacks) {
	switch {
	case c.Encryption == EncryptionOff:
	case c.Handshake == nil:
		calls.Handshake = func(_ context.Context, _ *session.Session, _ session.Identity, data []byte) (*Keys, error) {
			return session.AgreeOnKeys(data)
		}
	default:
		calls.Handshake = func(ctx context.Context, s *session.Session, id session.Identity, data []byte) (*Keys, error) {
			r := HandshakeRequest[M]{ClientID: s.ID(), RemoteAddr: s.RemoteAddr(), UserID: id.User, Raw: data}
			if client, ok := id.Value.(*Client[M]); ok {
				r.Metadata = client.metadata
			}
			return c.Handshake(ctx, r)
		}
	}
	if c.Transform != nil {
		calls.Transform = func(ctx context.Context, s *session.Session, e protocol.Envelope) ([]byte, error) {
			m, err := c.Transform(ctx, clientOf[M](s), Message{Event: e.Event, Data: e.Data, ID: e.ID})
			if m == nil || err != nil {
				return nil, err
			}
			data, err := protocol.EncodeData(m.Data)
			if err != nil {
				return nil, err
			}
			if m.Event == "" {
				return nil, errNoEvent
			}
			return protocol.AppendEvent(nil, m.Event, data), nil
		}
	}
}

var errNoEvent = errors.New("the message to send has no event")

// clientOf is the view of an authenticated session.
func clientOf[M any](s *session.Session) *Client[M] {
	c, _ := s.Value().(*Client[M])
	return c
}
