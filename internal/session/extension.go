package session

import (
	"time"

	"github.com/hearthws/hearth/protocol"
)

// grants are what the server has granted a client when it was authenticated.
type grants uint8

const (
	admitted  grants = 1 << iota // authenticated, so the callbacks are called at its end
	extension                    // the extension of the protocol (protocol §13)
	recovery                     // protocol.FeatureRecovery
	resume                       // protocol.FeatureResume
	askable                      // protocol.FeatureAsk
)

// has reports whether all of other were granted.
func (g grants) has(other grants) bool { return g&other == other }

// shutdownCode returns the code with which a client is closed when the server shuts down. Only the
// extension defines a meaning for 1012.
func (g grants) shutdownCode() int {
	if g.has(extension) {
		return protocol.CloseServiceRestart
	}
	return protocol.CloseGoingAway
}

const (
	// heartbeatInterval is the longest time after which a client with the extension sends a
	// heartbeat, and heartbeatTimeout for how long it then waits for anything to arrive.
	heartbeatInterval = 25 * time.Second
	heartbeatTimeout  = 10 * time.Second
)

// grantsFor returns what a client is granted that is about to be authenticated. requested is false
// if it has not requested the extension.
func (e *Env) grantsFor(r protocol.ExtensionRequest, requested bool) grants {
	if !requested {
		return admitted
	}
	g := admitted | extension
	if e.History != nil && r.Wants(protocol.FeatureRecovery) {
		g |= recovery
	}
	if e.Tickets != nil && r.Wants(protocol.FeatureResume) {
		g |= resume
	}
	if r.Wants(protocol.FeatureAsk) {
		g |= askable
	}
	return g
}

// granted describes g to a client that requests this version of the extension.
func (e *Env) granted(g grants, version int) protocol.Granted {
	granted := protocol.Granted{
		Version: min(version, protocol.ExtensionVersion), Heartbeat: heartbeatInterval, HeartbeatTimeout: heartbeatTimeout,
		MaxMessage: e.Limits.MaxPayload, MaxRooms: e.Limits.MaxRooms,
	}
	if t := e.Timeouts.Heartbeat; t > 0 {
		granted.Heartbeat = max(min(heartbeatInterval, t/3), time.Millisecond)
	}
	if g.has(recovery) {
		granted.Features = append(granted.Features, protocol.FeatureRecovery)
	}
	if g.has(resume) {
		granted.Features = append(granted.Features, protocol.FeatureResume)
	}
	if g.has(askable) {
		granted.Features = append(granted.Features, protocol.FeatureAsk)
	}
	return granted
}
