package hearth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// callbacks converts the callbacks of the Config for the node. The types A and M are not used below
// this file.
func (c Config[A, M]) callbacks(h *handlers[M]) session.Callbacks {
	calls := session.Callbacks{
		Authenticate: func(ctx context.Context, s *session.Session, req session.AuthRequest) (session.Identity, error) {
			r := AuthRequest[A]{
				ClientID: s.ID(), RemoteAddr: s.RemoteAddr(), Subprotocol: req.Subprotocol, FromRequest: req.FromRequest, Raw: req.Data,
				Again: req.Again, UserID: req.User,
			}
			if err := json.Unmarshal(r.Raw, &r.Credentials); err != nil {
				return session.Identity{}, fmt.Errorf("%w: decode credentials: %w", ErrRejected, err)
			}
			id, err := c.Authenticate(ctx, r)
			if err != nil {
				return session.Identity{}, rejection(err)
			}
			identity := session.Identity{User: id.UserID, Expires: id.ExpiresAt}
			if req.Again {
				identity.Replace = func() { clientOf[M](s).metadata.Store(&id.Metadata) }
			} else {
				identity.Value = newClient(s, id)
			}
			return identity, nil
		},
		Message: func(ctx context.Context, s *session.Session, e protocol.Envelope, r *session.Request) error {
			m := Message{Event: e.Event, Data: e.Data, ID: e.ID, request: r}
			return tellClient(s, h.handle(ctx, clientOf[M](s), m, c.Message), m)
		},
	}
	c.encryption(&calls)
	if c.Resume.Enabled {
		c.tickets(&calls)
	}
	if c.ValidateRooms != nil {
		calls.ValidateRooms = func(ctx context.Context, s *session.Session, rooms []string, id json.RawMessage) ([]string, error) {
			allowed, err := c.ValidateRooms(ctx, clientOf[M](s), rooms)
			if err != nil {
				if err = tellClient(s, err, Message{ID: id}); err == nil {
					err = session.ErrAnswered
				}
				return nil, err // the client joins no room, whatever else was returned
			}
			return allowed, nil
		}
	}
	if c.Connected != nil {
		calls.Connected = func(ctx context.Context, s *session.Session) { c.Connected(ctx, clientOf[M](s)) }
	}
	if c.Joined != nil {
		calls.Joined = func(ctx context.Context, s *session.Session, room string) { c.Joined(ctx, clientOf[M](s), room) }
	}
	if c.Left != nil {
		calls.Left = func(ctx context.Context, s *session.Session, room string) { c.Left(ctx, clientOf[M](s), room) }
	}
	if c.Disconnected != nil {
		calls.Disconnected = func(ctx context.Context, s *session.Session, code int, reason string) {
			c.Disconnected(ctx, clientOf[M](s), code, reason)
		}
	}
	return calls
}

// tickets adds the callbacks for tickets.
func (c Config[A, M]) tickets(calls *session.Callbacks) {
	calls.EncodeValue = func(s *session.Session) ([]byte, error) {
		b, err := json.Marshal(clientOf[M](s).Metadata())
		if err != nil {
			return nil, fmt.Errorf("encode metadata: %w", err)
		}
		return b, nil
	}
	calls.Restore = func(ctx context.Context, s *session.Session, t *ticket.Ticket) (session.Identity, error) {
		r := ResumeRequest[M]{ClientID: hub.ID(t.Client).String(), RemoteAddr: s.RemoteAddr(), UserID: t.User, Rooms: t.Rooms, ExpiresAt: t.Credentials, Issued: t.Issued}
		if err := json.Unmarshal(t.Metadata, &r.Metadata); err != nil {
			return session.Identity{}, fmt.Errorf("decode metadata: %w", err)
		}
		if c.Resumed != nil {
			r.Rooms = slices.Clone(r.Rooms)
			if err := c.Resumed(ctx, r); err != nil {
				return session.Identity{}, rejection(err)
			}
		}
		client := newClient(s, Identity[M]{UserID: t.User, Metadata: r.Metadata})
		client.resumed = true
		return session.Identity{User: t.User, Value: client, Expires: t.Credentials}, nil
	}
}

// encryption adds the callbacks for encryption.
func (c Config[A, M]) encryption(calls *session.Callbacks) {
	switch {
	case c.Encryption.Mode == EncryptionOff:
	case c.Handshake == nil:
		calls.Handshake = func(_ context.Context, _ *session.Session, _ session.Identity, data []byte) (*seal.Keys, error) {
			return session.AgreeOnKeys(data)
		}
	default:
		calls.Handshake = func(ctx context.Context, s *session.Session, id session.Identity, data []byte) (*seal.Keys, error) {
			r := HandshakeRequest[M]{ClientID: s.ID(), RemoteAddr: s.RemoteAddr(), UserID: id.User, Raw: data}
			if client, ok := id.Value.(*Client[M]); ok {
				r.Metadata = client.initial
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
			var data json.RawMessage
			if m.Data != nil { // as in Message, nil is no data
				if data, err = protocol.EncodeData(m.Data); err != nil {
					return nil, err
				}
			}
			if m.Event == "" {
				return nil, errNoEvent
			}
			return protocol.AppendEvent(nil, m.Event, data), nil
		}
	}
}

var errNoEvent = errors.New("the message to send has no event")

// rejection wraps err with ErrRejected if it is a ClientError.
func rejection(err error) error {
	if _, ok := errors.AsType[*ClientError](err); ok {
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return err
}

// tellClient sends err, which m has caused, to the client if it is a ClientError, and returns nil
// then. Otherwise it returns err.
func tellClient(s *session.Session, err error, m Message) error {
	if err == nil || errors.Is(err, ErrReplyLater) {
		return err
	}
	e, ok := errors.AsType[*ClientError](err)
	if !ok {
		return err
	}
	s.Debug("error sent to the client", "cause", err)
	sent := session.Answer(s, m.request, node.EncodeClientError(protocol.ClientError{Code: e.Code, Message: e.Message}, m.ID))
	if errors.Is(sent, ErrReplied) {
		return fmt.Errorf("%w: %w", sent, err) // otherwise the error would be lost
	}
	return sent
}

// clientOf returns the Client of an authenticated session.
func clientOf[M any](s *session.Session) *Client[M] {
	c, _ := s.Value().(*Client[M])
	return c
}
