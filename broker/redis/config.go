package redis

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/hearthws/hearth/broker"
)

// Config describes how a Broker is made. It needs URL or Addrs; everything else has a default.
//
// A field that is set overrides the URL, so a password need not be in the URL.
type Config struct {
	// URL is the address of Redis. The package comment lists its forms.
	URL string `json:"-"`

	// Addrs is the address without a URL: host:port, or the path of a Unix socket, which begins
	// with a slash. Several addresses are for Sentinels or a Cluster only.
	Addrs []string

	// Cluster says that Addrs are nodes of a Redis Cluster. Some of them are enough; the broker
	// finds the others.
	Cluster bool

	// A Sentinel says how to ask the Sentinels of a master.
	Sentinel Sentinel

	// Username is the ACL user at Redis (at the masters, not at the Sentinels). Default: the
	// default user.
	Username string

	// Password is the password at Redis. Default: none.
	Password string `json:"-"`

	// DB is the database to select. It does not separate applications, because Pub/Sub ignores
	// databases: programs that share a server share its channels. See Prefix.
	DB int

	// Prefix is put before the name of every channel, so that several applications can share one
	// Redis. With "shop:" the channel of broadcasts is shop:ws:broadcast. All servers and emitters
	// of an application need the same prefix. It consists of up to 64 letters, digits and : . _ - /
	// and must not begin as the channels themselves do. The reference implementation has no prefix.
	// Default: none.
	Prefix string

	// ClientName is the name of the connections in CLIENT LIST. Default "hearth".
	ClientName string

	// TLS encrypts the connections, those to Sentinels included. Default nil: no TLS, unless the
	// URL begins with rediss.
	TLS *tls.Config `json:"-"`

	// DialTimeout bounds connecting to one address, with TLS and login. Default 5 s.
	DialTimeout time.Duration

	// WriteTimeout bounds how long Redis may take to receive a pipeline of messages and to answer
	// it. Default 5 s.
	WriteTimeout time.Duration

	// ConnectTimeout is how long Start waits until Redis is ready, if its context allows. Default
	// 30 s.
	ConnectTimeout time.Duration

	// BackoffMin and BackoffMax bound the pause between two attempts to connect. It doubles with
	// each attempt, and is cut by a random part of up to a half. Defaults 100 ms and 5 s.
	BackoffMin, BackoffMax time.Duration

	// Patterns subscribes to all rooms, clients and users by three patterns, as the reference does,
	// instead of to the channels that are held. Redis has less to remember, and this node reads
	// every message of every node.
	Patterns bool

	// ReleaseGrace is how long a channel without holders stays subscribed, so that a room that
	// empties and fills again costs nothing. Default 5 s; negative: no time.
	ReleaseGrace time.Duration

	// GraceChannels is how many such channels may stay subscribed. Beyond that, those released
	// first are unsubscribed before ReleaseGrace is over, so clients that join and leave ever new
	// rooms do not fill Redis. Default 16384.
	GraceChannels int

	// HoldTimeout is the longest time that Hold waits for Redis. A Redis that hangs is noticed
	// after ProbeInterval and ProbeTimeout only, and clients that connect must not wait that long.
	// They are accepted, their channels count as held, and messages that they may have missed are
	// reported as a loss when Redis has answered. Default 2 s.
	HoldTimeout time.Duration

	// PublishQueue bounds the messages that wait to be published. Beyond it Publish returns
	// broker.ErrQueueFull. Default 65536 messages, 64 MiB.
	PublishQueue Bound

	// PublishMaxAge is how long a message waits while Redis is down. Then it is dropped and
	// counted. Default 10 s.
	PublishMaxAge time.Duration

	// ReceiveQueue bounds the messages that wait for Receiver.Deliver. Beyond it messages are
	// dropped, and reported as a loss. Default 65536 messages, 64 MiB.
	ReceiveQueue Bound

	// MaxMessage is the largest message that is published or received, in bytes of its JSON.
	// Default 8 MiB.
	MaxMessage int

	// ProbeInterval is the time between two messages that the node sends to itself, to check that
	// it receives messages. ProbeTimeout is how long one may take. Defaults 5 s and 5 s.
	ProbeInterval, ProbeTimeout time.Duration

	// History selects the rooms with history (broker.History). Redis keeps their logs, so all nodes
	// and emitters need the same rules. A room needs about 660 bytes in Redis with its first
	// message of 100 bytes of data, and 206 for each further one: the JSON of the message and 11
	// bytes (docs/operations.md has the commands). A key needs 104 bytes and its text for
	// broker.KeyLifetime. Default: no room has history.
	History broker.HistoryRules

	// Logger receives a line when Redis cannot be reached and when it can be again, and at most one
	// line in ten seconds about each kind of dropped messages. Default slog.Default(). Use
	// slog.New(slog.DiscardHandler) for no log.
	Logger *slog.Logger `json:"-"`
}

// A Sentinel is how the Sentinels of a master are asked.
type Sentinel struct {
	// MasterSet is the name under which they know the master.
	MasterSet string

	// Username is the ACL user at the Sentinels. Default: the default user.
	Username string

	// Password is the password at the Sentinels. Default: none.
	Password string `json:"-"`
}

// A Bound limits a queue. An empty queue accepts one message of any size.
type Bound struct {
	Messages int // how many messages
	Bytes    int // how many bytes of them
}

func (b Bound) withDefaults() Bound {
	return Bound{Messages: cmp.Or(b.Messages, 1<<16), Bytes: cmp.Or(b.Bytes, 64<<20)}
}

// String returns the addresses, without any secret.
func (c Config) String() string {
	c, err := c.withURL()
	if err != nil {
		return "redis (" + err.Error() + ")"
	}
	return "redis " + c.location()
}

// GoString returns the same as String, so that %#v shows no secret.
func (c Config) GoString() string { return c.String() }

// LogValue returns the same as String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// prefix returns the beginning of an error. It names the servers if there are several: the rest of
// the error names the one that was tried.
func (c Config) prefix() string {
	if c.Sentinel.MasterSet == "" && !c.Cluster {
		return "redis: "
	}
	return "redis: " + c.location() + ": "
}

// location returns the address, for errors and logs.
func (c Config) location() string {
	at := strings.Join(c.Addrs, ", ")
	switch {
	case c.Sentinel.MasterSet != "":
		return fmt.Sprintf("master %q of the Sentinels at %s", c.Sentinel.MasterSet, at)
	case c.Cluster:
		return "the Cluster at " + at
	}
	return at
}

// withURL returns c with the settings of its URL.
func (c Config) withURL() (Config, error) {
	if c.URL == "" {
		return c, nil
	}
	if len(c.Addrs) > 0 {
		return c, errors.New("redis: Config.Addrs: set either URL or Addrs")
	}
	from, err := parseURL(c.URL)
	if err != nil {
		return c, fmt.Errorf("redis: Config.URL: %w", err)
	}
	c.URL, c.Addrs = "", from.Addrs
	c.Cluster = c.Cluster || from.Cluster
	c.Sentinel.MasterSet = cmp.Or(c.Sentinel.MasterSet, from.Sentinel.MasterSet)
	c.Sentinel.Username = cmp.Or(c.Sentinel.Username, from.Sentinel.Username)
	c.Sentinel.Password = cmp.Or(c.Sentinel.Password, from.Sentinel.Password)
	c.Username = cmp.Or(c.Username, from.Username)
	c.Password = cmp.Or(c.Password, from.Password)
	c.DB = cmp.Or(c.DB, from.DB)
	c.ClientName = cmp.Or(c.ClientName, from.ClientName)
	c.TLS = cmp.Or(c.TLS, from.TLS)
	c.DialTimeout = cmp.Or(c.DialTimeout, from.DialTimeout)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, from.WriteTimeout)
	return c, nil
}

func (c Config) withDefaults() Config {
	c.ClientName = cmp.Or(c.ClientName, "hearth")
	c.DialTimeout = cmp.Or(c.DialTimeout, 5*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 5*time.Second)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 30*time.Second)
	c.BackoffMin = cmp.Or(c.BackoffMin, 100*time.Millisecond)
	c.BackoffMax = max(cmp.Or(c.BackoffMax, 5*time.Second), c.BackoffMin)
	c.HoldTimeout = cmp.Or(c.HoldTimeout, 2*time.Second)
	c.ReleaseGrace = max(cmp.Or(c.ReleaseGrace, 5*time.Second), 0)
	c.GraceChannels = cmp.Or(c.GraceChannels, 1<<14)
	c.PublishQueue = c.PublishQueue.withDefaults()
	c.PublishMaxAge = cmp.Or(c.PublishMaxAge, 10*time.Second)
	c.ReceiveQueue = c.ReceiveQueue.withDefaults()
	c.MaxMessage = cmp.Or(c.MaxMessage, 8<<20)
	c.ProbeInterval = cmp.Or(c.ProbeInterval, 5*time.Second)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// validate returns an error that names the first wrong field.
func (c Config) validate() error {
	if len(c.Addrs) == 0 {
		return errors.New("redis: Config.URL or Config.Addrs is required")
	}
	for _, addr := range c.Addrs {
		if strings.HasPrefix(addr, "/") {
			continue
		}
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("redis: Config.Addrs: %q is neither host:port nor the path of a socket", addr)
		}
		if _, err := net.LookupPort("tcp", port); err != nil { // Start would wait for it otherwise
			return fmt.Errorf("redis: Config.Addrs: %q has a port that does not exist", addr)
		}
	}
	sentinel := c.Sentinel.MasterSet != ""
	switch {
	case c.Cluster && sentinel:
		return errors.New("redis: Config.Cluster: Sentinels do not watch a Cluster")
	case c.Cluster && c.DB != 0:
		return errors.New("redis: Config.DB: a Cluster has database 0 only")
	case len(c.Addrs) > 1 && !c.Cluster && !sentinel:
		return errors.New("redis: Config.Addrs: several need Cluster or Sentinel.MasterSet")
	case !sentinel && c.Sentinel != (Sentinel{}):
		return errors.New("redis: Config.Sentinel.MasterSet is required")
	case c.Username != "" && c.Password == "":
		return errors.New("redis: Config.Password is required with a Username")
	case c.Sentinel.Username != "" && c.Sentinel.Password == "":
		return errors.New("redis: Config.Sentinel.Password is required with a Username")
	case strings.ContainsAny(c.ClientName, " \r\n"):
		return errors.New("redis: Config.ClientName: Redis takes no spaces in it")
	}
	if err := c.History.Check(); err != nil {
		return fmt.Errorf("redis: Config.History: %w", err)
	}
	if err := CheckPrefix(c.Prefix); err != nil {
		return fmt.Errorf("redis: Config.Prefix: %w", err)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"DB", int64(c.DB)}, {"DialTimeout", int64(c.DialTimeout)}, {"WriteTimeout", int64(c.WriteTimeout)},
		{"ConnectTimeout", int64(c.ConnectTimeout)}, {"BackoffMin", int64(c.BackoffMin)}, {"BackoffMax", int64(c.BackoffMax)},
		{"PublishQueue.Messages", int64(c.PublishQueue.Messages)}, {"PublishQueue.Bytes", int64(c.PublishQueue.Bytes)},
		{"PublishMaxAge", int64(c.PublishMaxAge)}, {"ReceiveQueue.Messages", int64(c.ReceiveQueue.Messages)},
		{"ReceiveQueue.Bytes", int64(c.ReceiveQueue.Bytes)}, {"MaxMessage", int64(c.MaxMessage)},
		{"HoldTimeout", int64(c.HoldTimeout)}, {"GraceChannels", int64(c.GraceChannels)},
		{"ProbeInterval", int64(c.ProbeInterval)}, {"ProbeTimeout", int64(c.ProbeTimeout)},
	} {
		if f.value < 0 {
			return fmt.Errorf("redis: Config.%s is negative", f.name)
		}
	}
	return nil
}
