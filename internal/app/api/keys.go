package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Scope is a set of operations.
type Scope string

// The scopes.
const (
	Publish Scope = "publish" // send to clients
	Read    Scope = "read"    // counts, members, history, servers
	Manage  Scope = "manage"  // disconnect, join, leave, remove history
)

// MinKey is the least length of a key, in bytes.
const MinKey = 32

// Keys are the keys that clients of the API may use. They are immutable, and only their hashes are
// kept.
type Keys struct{ keys []key }

type key struct {
	name   string
	scopes []Scope // nil: all
	hash   [sha256.Size]byte
}

// ParseKeys parses keys that are separated by line breaks or commas. Each is NAME=KEY, with all
// scopes, or NAME:SCOPE+SCOPE=KEY. The name is for the log. Empty lines, and lines that begin with
// #, are ignored. Errors name the entry, and never show a key.
func ParseKeys(text string) (*Keys, error) {
	k := &Keys{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
			continue
		}
		for entry := range strings.SplitSeq(line, ",") {
			if entry = strings.TrimSpace(entry); entry == "" {
				continue
			}
			parsed, err := parseKey(entry)
			if err != nil {
				return nil, fmt.Errorf("key %d: %w", len(k.keys)+1, err)
			}
			if slices.ContainsFunc(k.keys, func(other key) bool { return other.name == parsed.name }) {
				return nil, fmt.Errorf("key %d: there is another key with this name", len(k.keys)+1)
			}
			k.keys = append(k.keys, parsed)
		}
	}
	return k, nil
}

func parseKey(entry string) (key, error) {
	label, secret, ok := strings.Cut(entry, "=")
	if !ok {
		return key{}, errors.New("takes NAME=KEY or NAME:SCOPE+SCOPE=KEY")
	}
	name, scopes, limited := strings.Cut(label, ":")
	k := key{name: strings.TrimSpace(name), hash: sha256.Sum256([]byte(strings.TrimSpace(secret)))}
	if k.name == "" || len(k.name) > 64 || strings.ContainsFunc(k.name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return key{}, errors.New("its name takes 1 to 64 characters of ASCII without spaces")
	}
	if n := len(strings.TrimSpace(secret)); n < MinKey {
		return key{}, fmt.Errorf("has %d characters; it takes at least %d, as printed by: openssl rand -hex 32", n, MinKey)
	}
	if !limited {
		return k, nil
	}
	for scope := range strings.SplitSeq(scopes, "+") {
		switch s := Scope(strings.TrimSpace(scope)); s {
		case Publish, Read, Manage:
			k.scopes = append(k.scopes, s)
		default:
			return key{}, fmt.Errorf("scopes take %s, %s and %s, separated by +", Publish, Read, Manage)
		}
	}
	return k, nil
}

// Len returns the number of keys.
func (k *Keys) Len() int { return len(k.keys) }

// find returns the key of an Authorization header. Its time does not depend on the keys, except on
// their number.
func (k *Keys) find(header string) (found key, ok bool) {
	scheme, secret, _ := strings.Cut(header, " ")
	hash := sha256.Sum256([]byte(strings.TrimSpace(secret)))
	for i := range k.keys {
		if subtle.ConstantTimeCompare(k.keys[i].hash[:], hash[:]) == 1 {
			found, ok = k.keys[i], true
		}
	}
	return found, ok && strings.EqualFold(scheme, "Bearer")
}

func (k key) allows(s Scope) bool { return k.scopes == nil || slices.Contains(k.scopes, s) }
