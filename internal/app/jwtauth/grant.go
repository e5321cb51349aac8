package jwtauth

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hearthws/hearth/protocol"
)

// MaxGrant is the longest time from now until a grant expires. It bounds the harm of one that
// leaks.
const MaxGrant = time.Hour

// roomClaim is the claim with the room of a grant. A token for authentication does not have it.
const roomClaim = "room"

// Grants verifies grants: tokens that allow a client to join one room. Its methods are safe for
// concurrent use.
type Grants struct {
	keys   jwt.VerificationKeySet
	parser *jwt.Parser
	leeway time.Duration
}

// NewGrants returns Grants that accept grants signed with HS256 and one of the secrets. See
// Config.Secrets and Config.Leeway.
func NewGrants(secrets [][]byte, leeway time.Duration) (*Grants, error) {
	c := Config{Secrets: secrets}.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Grants{keys: c.verificationKeys(), leeway: leeway, parser: jwt.NewParser(
		jwt.WithValidMethods(c.Algorithms), jwt.WithExpirationRequired(), jwt.WithLeeway(leeway), jwt.WithStrictDecoding(),
	)}, nil
}

// Verify returns the room that a grant allows the user to join. A grant with the claim sub is only
// for that user. Any error is an *Error.
func (g *Grants) Verify(grant, user string) (room string, err error) {
	if room, err = g.verify(grant, user); err != nil {
		return "", &Error{Reason: reasonOf(err), err: err}
	}
	return room, nil
}

func (g *Grants) verify(grant, user string) (string, error) {
	if len(grant) > MaxToken {
		return "", errTooLarge
	}
	var c claims
	parsed, err := g.parser.ParseWithClaims(grant, &c, func(*jwt.Token) (any, error) { return g.keys, nil })
	if parsed != nil && parsed.Method != nil && parsed.Method != jwt.SigningMethodHS256 {
		return "", errAlgorithm
	}
	if err != nil {
		return "", err
	}
	expires, err := c.date("exp")
	if err != nil || expires == nil || time.Until(expires.Time) > MaxGrant+g.leeway {
		return "", &claimError{"exp", fmt.Sprintf("is more than %v away", MaxGrant)}
	}
	if sub, ok, err := c.text("sub"); err != nil || ok && (sub != user || user == "") {
		return "", errors.Join(&claimError{"sub", "is another user"}, err)
	}
	room, ok, err := c.text(roomClaim)
	if err != nil || !ok {
		return "", errors.Join(&claimError{roomClaim, "is missing"}, err)
	}
	if err := protocol.CheckRoom(room); err != nil {
		return "", &claimError{roomClaim, "cannot be a room: " + err.Error()}
	}
	return room, nil
}

// CreateGrant returns a grant for a room, signed with the secret. It is for one user if user is not
// empty. The lifetime is 1 s to MaxGrant.
func CreateGrant(secret []byte, room, user string, lifetime time.Duration) (string, error) {
	if lifetime < time.Second || lifetime > MaxGrant {
		return "", fmt.Errorf("the lifetime is %v; it can be 1s to %v", lifetime, MaxGrant)
	}
	if err := protocol.CheckRoom(room); err != nil {
		return "", fmt.Errorf("%.64q cannot be a room: %w", room, err)
	}
	if err := (Config{Secrets: [][]byte{secret}}).withDefaults().check(); err != nil {
		return "", err
	}
	all := jwt.MapClaims{roomClaim: room, "exp": jwt.NewNumericDate(time.Now().Add(lifetime))}
	if user != "" {
		all["sub"] = user
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, all).SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("sign the grant: %w", err)
	}
	return text, nil
}
