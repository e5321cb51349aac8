package jwtauth

import (
	"errors"

	"github.com/golang-jwt/jwt/v5"
)

// A Reason is the result of a verification.
type Reason int

// The reasons.
const (
	Accepted    Reason = iota
	Malformed          // not a token
	TooLarge           // larger than MaxToken
	Algorithm          // signed with an algorithm that is not accepted, or none
	UnknownKey         // signed with a key that is not in the key set
	Signature          // the signature is not valid for any key
	Expired            // the claim exp has passed
	NotYetValid        // the claim nbf has not been reached
	Audience           // for another audience
	Issuer             // of another issuer
	Claims             // a claim is missing or not valid
	Unavailable        // the key set cannot be loaded: the token may be valid

	reasons
)

// String returns the reason as one word for logs and metrics.
func (r Reason) String() string {
	names := [reasons]string{
		"accepted", "malformed", "too_large", "algorithm", "unknown_key", "signature", "expired", "not_yet_valid", "audience",
		"issuer", "claims", "unavailable",
	}
	if r < 0 || r >= reasons {
		return "unknown"
	}
	return names[r]
}

// ReasonOf returns the reason of an error of Verify, and Accepted for nil.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return Accepted
}

// Reasons returns all reasons.
func Reasons() []Reason {
	all := make([]Reason, reasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// An Error says why a token was not accepted. Its text has no part of the token except names of
// claims and of the algorithm.
type Error struct {
	Reason Reason
	err    error
}

func (e *Error) Error() string { return "token: " + e.Reason.String() + ": " + e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

var (
	errTooLarge    = errors.New("the token is larger than 8 KiB")
	errUnavailable = errors.New("the key set is not available")
	errAlgorithm   = errors.New("the token is signed with an algorithm that is not accepted")
	errClaims      = errors.New("the claims are not valid")
	errUnknownKey  = errors.New("the key set has no such key")
)

// reasonOf returns the reason of an error of the parser, or of a claimError.
func reasonOf(err error) Reason {
	if _, ok := errors.AsType[*claimError](err); ok {
		return Claims
	}
	for _, is := range []struct {
		err    error
		reason Reason
	}{
		{errTooLarge, TooLarge}, {errUnavailable, Unavailable}, {errUnknownKey, UnknownKey}, {errAlgorithm, Algorithm}, {errClaims, Claims},
		{jwt.ErrTokenMalformed, Malformed}, {jwt.ErrTokenUnverifiable, Algorithm}, {jwt.ErrTokenExpired, Expired}, {jwt.ErrTokenNotValidYet, NotYetValid},
		{jwt.ErrTokenInvalidAudience, Audience}, {jwt.ErrTokenInvalidIssuer, Issuer}, {jwt.ErrTokenInvalidClaims, Claims},
		{jwt.ErrTokenSignatureInvalid, Signature},
	} {
		if errors.Is(err, is.err) {
			return is.reason
		}
	}
	return Malformed
}
