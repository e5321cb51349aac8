package emit

import (
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/emitter"
)

// ErrDown is wrapped by errors that come of there being no connection.
var ErrDown = broker.ErrDown

// A Sender sends what is read. Its methods are for one goroutine, and Close for the same.
type Sender struct{ emitter *emitter.Emitter }

// CheckPrefix reports why a prefix can't be one of channels.
func CheckPrefix(prefix string) error { return redis.CheckPrefix(prefix) }

// Open makes a sender for the Redis at url, to channels with a prefix that CheckPrefix accepts. It does not connect yet: an
// error is about the URL.
func Open(url, prefix string) (*Sender, error) {
	b, err := redis.New(redis.Config{URL: url, Prefix: prefix, ClientName: "hearth-emit"})
	if err != nil {
		return nil, err
	}
	return New(b)
}

// New makes a sender for any publisher, which Close closes.
func New(p broker.Publisher) (*Sender, error) {
	e, err := emitter.New(p)
	return &Sender{e}, err
}

// Close ends the sender.
func (s *Sender) Close() error { return s.emitter.Close() }
