package emit

import (
	"fmt"
	"strings"

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

// History is the rules for rooms with history.
type History = broker.HistoryRules

// ParseHistory parses rules, each in the form of broker.ParseHistoryRule. One text may have several,
// separated by commas.
func ParseHistory(texts []string) (History, error) {
	var rules History
	for text := range strings.SplitSeq(strings.Join(texts, ","), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		r, err := broker.ParseHistoryRule(text)
		if err != nil {
			return nil, fmt.Errorf("%q %w", text, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// Open returns a sender for the Redis at url, with a channel prefix that CheckPrefix accepts and
// rules of ParseHistory. It does not connect yet, so an error concerns the URL.
func Open(url, prefix string, history History) (*Sender, error) {
	b, err := redis.New(redis.Config{URL: url, Prefix: prefix, History: history, ClientName: "hearth-emit"})
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
