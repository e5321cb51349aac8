package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/resp"
)

// A conn is one connection to one Redis server, logged in. When it fails it stays failed: its user
// asks the dialer for another one, which may lead to another server.
type conn struct {
	*resp.Conn
	addr string
	role string // master, replica, cluster or sentinel, as the server said last

	runID atomic.Pointer[string] // set by readRunID, for calls of scripts

	// demoted is set on the connection of a subscription when it is kept only for messages that
	// others still publish there. Probes received on it prove nothing.
	demoted *atomic.Bool
}

// login is the user that a connection is for.
type login struct {
	username, password string
	db                 int
}

// connect dials and logs in, and asks for the server's role. accept says which messages and how
// large replies the connection accepts; its login is ignored. The zero value is for a connection
// that does not subscribe.
func (d *dialer) connect(ctx context.Context, addr string, as login, accept resp.Options) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	c, err := d.logIn(ctx, addr, as, accept)
	if err == nil {
		if err = c.hello(ctx); err != nil {
			c.Close()
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, d.withHint(err)
	}
	return c, nil
}

// logIn dials and logs in.
func (d *dialer) logIn(ctx context.Context, addr string, as login, accept resp.Options) (*conn, error) {
	socket, err := d.dial(ctx, addr)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // without the address, which the callers add
		}
		return nil, err
	}
	accept.Username, accept.Password, accept.DB, accept.ClientName = as.username, as.password, as.db, d.config.ClientName
	c, err := resp.Connect(ctx, socket, accept)
	if err != nil {
		if isOldRedis(err) {
			err = fmt.Errorf("%w (%w)", errOldRedis, err)
		}
		return nil, err
	}
	return &conn{Conn: c, addr: addr}, nil
}

// isOldRedis reports whether a server rejected HELLO 3 because it does not know it.
func isOldRedis(err error) bool {
	var reply resp.Error
	return errors.As(err, &reply) &&
		(strings.HasPrefix(string(reply), "ERR unknown command") || strings.HasPrefix(string(reply), "NOPROTO"))
}

// dial opens a network connection that notices when the other side is gone without closing it.
func (d *dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         setSocketOptions,
	}
	if strings.HasPrefix(addr, "/") {
		return dialer.DialContext(ctx, "unix", addr)
	}
	if d.config.TLS != nil {
		secure := tls.Dialer{NetDialer: &dialer, Config: d.config.TLS}
		return secure.DialContext(ctx, "tcp", addr)
	}
	return dialer.DialContext(ctx, "tcp", addr)
}

// hello asks the server for its role. It also proves that the server answers.
func (c *conn) hello(ctx context.Context) error {
	about, err := c.Do(ctx, "HELLO")
	if err != nil {
		return err
	}
	c.role, _ = about.Get("role").Text()
	if mode, _ := about.Get("mode").Text(); mode == "cluster" || mode == "sentinel" {
		c.role = mode
	}
	return nil
}

// doOne sends one command. An error reply is a reply: the error is that of the connection.
func (c *conn) doOne(ctx context.Context, command []string) (resp.Value, error) {
	replies, err := c.Pipeline(ctx, command)
	if err != nil {
		return resp.Value{}, err
	}
	return replies[0], nil
}

// usable returns an error if messages published on the server would not reach the other nodes, by
// the role that it reported last.
func (c *conn) usable() error {
	switch c.role {
	case "sentinel":
		return errSentinel
	case "master", "cluster", "":
		return nil
	}
	return errReplica
}

// lostConnection returns errConnection for the ways in which a connection ends without a reason.
func lostConnection(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return errConnection
	}
	return err
}
