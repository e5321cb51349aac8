package session

import (
	"bytes"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// maxHeartbeat is the length up to which a message can be a heartbeat for parseHeartbeat, in bytes.
const maxHeartbeat = 256

var (
	heartbeat      = []byte(`{"event":"heartbeat"}`) // the most frequent message
	heartbeatName  = []byte(`"heartbeat"`)
	heartbeatReply = ws.NewMessage(heartbeat)
)

// parseHeartbeat reports whether a message is a heartbeat, and returns its id; nil for none. It
// finds the usual form only, since the event loop must not parse JSON: with members, the other
// short messages that have the word, for clients whose heartbeats are answered. The worker handles
// all other heartbeats.
func parseHeartbeat(payload []byte, deflate ws.Opcode, members bool) (id []byte, ok bool) {
	if deflate != 0 {
		return nil, false
	}
	if bytes.Equal(payload, heartbeat) {
		return nil, true
	}
	if !members || len(payload) > maxHeartbeat || !bytes.Contains(payload, heartbeatName) {
		return nil, false
	}
	e, err := protocol.ParseEnvelope(payload)
	return e.ID, err == nil && e.Event == protocol.EventHeartbeat
}

// answerHeartbeat answers a heartbeat of a client with the extension. A client that does not read
// the answers gets no more of them.
func answerHeartbeat(m *hub.Member, id []byte) {
	if m.Buffered() >= maxPongBacklog {
		return // the client will receive other messages
	}
	if id == nil {
		m.Notice(heartbeatReply)
		return
	}
	m.Notice(ws.NewMessage(protocol.AppendReply(nil, protocol.EventHeartbeat, nil, id)))
}
