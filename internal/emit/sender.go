package emit

import (
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/emitter"
)

// ErrDown is wrapped by errors that have a missing connection as their cause.
var ErrDown = broker.ErrDown

// A Sender sends events. One goroutine at a time may use it.
type Sender struct{ emitter *emitter.Emitter }

// CheckPrefix reports why a prefix for channels is invalid.
func CheckPrefix(prefix string) error { return redis.CheckPrefix(prefix) }

// Open returns a sender for the Redis at url, with a channel prefix that CheckPrefix accepts. It
// does not connect yet, so an error concerns the URL.
func Open(url, prefix string) (*Sender, error) {
	b, err := redis.New(redis.Config{URL: url, Prefix: prefix, ClientName: "hearth-emit"})
	if err != nil {
		return nil, err
	}
	return New(b)
}

// New returns a sender for any publisher. Close closes the publisher.
func New(p broker.Publisher) (*Sender, error) {
	e, err := emitter.New(p)
	return &Sender{e}, err
}

// Close closes the sender and its publisher.
func (s *Sender) Close() error { return s.emitter.Close() }
