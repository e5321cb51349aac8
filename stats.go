package hearth

import "github.com/hearthws/hearth/internal/session"

// TicketStats count the tickets with which clients resume their sessions (Config.Resume).
type TicketStats struct {
	Issued   uint64 // tickets that were sent to clients
	Failed   uint64 // tickets that were not: too large, or the metadata could not be encoded
	Accepted uint64 // clients that resumed their sessions

	Invalid     uint64 // rejected: malformed, sealed with another key, or issued in the future
	Expired     uint64 // rejected because they had expired
	Used        uint64 // rejected because they had been used
	Revoked     uint64 // rejected because of RevokeTickets or Disconnect
	Unavailable uint64 // rejected by Config.Resumed, or because the other servers cannot be asked

	// Displaced counts clients for which Left and Disconnected were called before Resume.Grace had
	// passed, because too many clients were absent.
	Displaced uint64
}

// Stats are the counters of one server since New, and a few gauges. They do not include other
// servers.
type Stats struct {
	Connections     int // gauge: open sockets of clients, authenticated or not
	Unauthenticated int // gauge: clients that are not authenticated
	Clients         int // gauge: authenticated clients
	Encrypted       int // gauge: authenticated clients that are encrypted
	Rooms           int // gauge: rooms with members, without the rooms of clients' own ids
	Nodes           int // gauge: known servers that share the broker, this one included

	Opened uint64 // connections that became clients
	// opening handshakes that were answered with an HTTP error, and other requests that were not
	// handshakes
	HandshakesRejected uint64
	Authenticated      uint64 // clients that Authenticate accepted
	// clients closed with 4003 because Authenticate rejected them or their credentials did not
	// decode
	AuthRejected      uint64
	AuthFailed        uint64 // clients closed with 4003 because Authenticate failed
	Reauthenticated   uint64 // new credentials that replaced those of an authenticated client
	ReauthRejected    uint64 // new credentials of authenticated clients that were rejected
	Expired           uint64 // clients closed with 4005 because their credentials expired
	AuthTimeouts      uint64 // clients closed with 4001 because they did not authenticate in time
	KeysAgreed        uint64 // encryption handshakes that succeeded
	KeysRejected      uint64 // clients closed with 4004 because they sent no key, or a bad one
	KeysFailed        uint64 // clients closed with 4004 because Config.Handshake failed
	DecryptFailed     uint64 // clients closed with 1008 because a message did not decrypt
	PlaintextRejected uint64 // clients closed with 1008 because of Encryption.Only
	// clients closed with 4001 because of Limits.MaxUnauthenticated, …PerAddr or MaxConnections
	Evicted           uint64
	PreAuthFlood      uint64 // clients closed with 1008 because of Limits.UnauthenticatedMessages
	RateLimited       uint64 // clients closed with 1008 because of Limits.MessageRate or ByteRate
	HeartbeatTimeouts uint64 // clients closed with 4002
	IdleTimeouts      uint64 // clients cut because they did not answer pings
	ProtocolErrors    uint64 // clients closed with 1002, 1007 or 1009
	SlowClosed        uint64 // clients closed with 1013

	MessagesIn  uint64 // messages from clients
	AnswersLate uint64 // answers of clients that no call of Ask or AskEach waited for
	BadMessages uint64 // messages from clients that were not JSON or had no event
	// messages from clients with an event that has neither a handler nor Config.Message
	MessagesUnhandled uint64
	// messages from clients that were not handled, because the client was closed or Shutdown's time
	// was over
	MessagesDiscarded uint64
	RoomsRejected     uint64 // rooms that clients asked for and were not allowed to join
	// callbacks that failed, except Authenticate for new clients, ClientErrors, and callbacks of
	// disconnected clients
	CallbackErrors uint64
	Delivered      uint64 // messages handed to connections, one for each client
	// messages dropped for clients that read too slowly, one for each client
	Dropped  uint64
	Unsealed uint64 // messages lost because encryption failed, one for each client
	// messages of other servers that exceeded Limits.SendQueue; BrokerLost includes them
	DeliveriesLost uint64
	BrokerLosses   uint64 // times at which messages of other servers may have been missed
	// messages of other servers that are known to be missed, where they can be counted
	BrokerLost uint64
	Resyncs    uint64 // clients to which Config.Resync sent `resync`

	Tickets TicketStats // of clients that resume (Config.Resume)

	// rooms with history (HistoryRule); 0 without any

	Fetched     uint64 // messages that the broker had lost, and that were read from the history
	Recovered   uint64 // messages that clients had missed and got when they joined a room
	Unrecovered uint64 // rooms that clients joined without the messages that they had missed
	// times that a room had missing messages that could not be recovered; BrokerLosses includes
	// them
	Gaps        uint64
	Interrupted uint64 // clients that were taken out of a room for that reason
	// messages to rooms with history from senders that do not know the history: they were
	// delivered, and cannot be recovered
	Unpositioned uint64
}

// Stats returns the counters. Each is exact, but they are not read at the same instant. It does not
// block.
func (s *Server[A, M]) Stats() Stats {
	st, hub, hist := s.node.Stats(), s.node.Hub(), s.node.HistoryStats()
	return Stats{
		Connections: int(st.Connections.Load()), Unauthenticated: s.node.Unauthenticated(),
		Clients: s.Local().Count(ToAll()), Rooms: hub.CountRooms(), Encrypted: hub.Encrypted(), Nodes: s.node.CountNodes(),

		Opened: st.Opened.Load(), HandshakesRejected: st.HandshakeRefused.Load(), Authenticated: st.Authenticated.Load(),
		KeysAgreed: st.KeysAgreed.Load(), KeysRejected: st.KeysRejected.Load(), KeysFailed: st.KeysFailed.Load(),
		DecryptFailed: st.DecryptFailed.Load(), PlaintextRejected: st.PlaintextRejected.Load(), Unsealed: hub.Unsealed(),
		AuthRejected: st.AuthRejected.Load(), AuthFailed: st.AuthFailed.Load(), AuthTimeouts: st.AuthTimeouts.Load(),
		Reauthenticated: st.Reauthenticated.Load(), ReauthRejected: st.ReauthRejected.Load(), Expired: st.Expired.Load(),
		Evicted: st.Evicted.Load(), PreAuthFlood: st.PreAuthFlood.Load(), HeartbeatTimeouts: st.HeartbeatTimeouts.Load(),
		IdleTimeouts: st.IdleTimeouts.Load(), ProtocolErrors: st.ProtocolErrors.Load(), SlowClosed: st.SlowClosed.Load(),

		AnswersLate: st.AnswersLate.Load(), MessagesIn: st.MessagesIn.Load(), BadMessages: st.BadMessages.Load(), MessagesUnhandled: st.MessagesUnhandled.Load(),
		RateLimited: st.RateLimited.Load(), MessagesDiscarded: st.MessagesDiscarded.Load(),
		RoomsRejected: st.RoomsRejected.Load(), CallbackErrors: st.CallbackErrors.Load(),
		Delivered: hub.Delivered(), Dropped: hub.Dropped(),
		DeliveriesLost: st.DeliveriesLost.Load(), BrokerLosses: st.BrokerLosses.Load(),
		BrokerLost: st.BrokerLost.Load(), Resyncs: st.Resyncs.Load(), Tickets: ticketStats(&st.Tickets),

		Fetched: hist.Fetched.Load(), Recovered: hist.Recovered.Load(), Unrecovered: hist.Unrecovered.Load(), Gaps: hist.Gaps.Load(),
		Interrupted: st.Interrupted.Load(), Unpositioned: st.Unpositioned.Load(),
	}
}

func ticketStats(t *session.TicketStats) TicketStats {
	return TicketStats{
		Issued: t.Issued.Load(), Failed: t.Failed.Load(), Accepted: t.Accepted.Load(), Invalid: t.Invalid.Load(), Expired: t.Expired.Load(),
		Used: t.Used.Load(), Revoked: t.Revoked.Load(), Unavailable: t.Unavailable.Load(), Displaced: t.Displaced.Load(),
	}
}
