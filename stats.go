package hearth

// Stats are the counters of one server since New, and a few gauges. They do not include other servers.
type Stats struct {
	Connections     int // gauge: open sockets of clients, authenticated or not
	Unauthenticated int // gauge: clients that are not authenticated
	Clients         int // gauge: authenticated clients
	Encrypted       int // gauge: authenticated clients that are encrypted
	Rooms           int // gauge: rooms with members, without the rooms of clients' own ids
	Nodes           int // gauge: known servers that share the broker, this one included

	Opened            uint64 // connections that became clients
	HandshakeRefused  uint64 // opening handshakes that were answered with an HTTP error, requests that were no handshakes included
	Authenticated     uint64 // clients that Authenticate accepted
	AuthRejected      uint64 // clients closed with 4003 because Authenticate rejected them, or their credentials did not decode
	AuthFailed        uint64 // clients closed with 4003 because Authenticate failed
	AuthTimeouts      uint64 // clients closed with 4001 because their time was up
	KeysAgreed        uint64 // encryption handshakes that succeeded
	KeysRejected      uint64 // clients closed with 4004 because they sent no key, or a bad one
	KeysFailed        uint64 // clients closed with 4004 because Config.Handshake failed
	DecryptFailed     uint64 // clients closed with 1008 because an encrypted message did not decrypt
	PlaintextRejected uint64 // clients closed with 1008 because of Encryption.Only
	Evicted           uint64 // clients closed with 4001 to make room for newer ones: Limits.MaxUnauthenticated and …PerAddr
	PreAuthFlood      uint64 // clients closed with 1008 because of Limits.UnauthenticatedMessages
	RateLimited       uint64 // clients closed with 1008 because of Limits.MessageRate or ByteRate
	HeartbeatTimeouts uint64 // clients closed with 4002
	IdleTimeouts      uint64 // clients cut off because they did not even answer pings
	ProtocolErrors    uint64 // clients closed with 1002, 1007 or 1009
	SlowClosed        uint64 // clients closed with 1013

	MessagesIn        uint64 // messages from clients
	BadMessages       uint64 // messages from clients that were not JSON, or had no event
	MessagesUnhandled uint64 // messages from clients of events that have neither a handler nor Config.Message
	MessagesDiscarded uint64 // messages from clients that were not handled, because the client was closed or a shutdown ended
	RoomsRejected     uint64 // joins that were not allowed, one for each room
	CallbackErrors    uint64 // callbacks that failed, except Authenticate, ClientErrors, and callbacks of a client that has left
	Delivered         uint64 // messages handed to connections, one for each client
	Dropped           uint64 // messages dropped for clients that read too slowly, one for each client
	Unsealed          uint64 // messages lost because they could not be encrypted, one for each client
	DeliveriesLost    uint64 // messages of other servers that exceeded Limits.SendQueue; BrokerLost counts them, too
	BrokerLosses      uint64 // times that messages of other servers may have been missed
	BrokerLost        uint64 // messages of other servers that are known to be missed, where they can be counted
	Resyncs           uint64 // clients to which Config.Resync sent `resync`
}

// Stats returns the counters. Each is exact, but they are not read at the same instant.
func (s *Server[A, M]) Stats() Stats {
	st, hub := s.node.Stats(), s.node.Hub()
	return Stats{
		Connections: int(st.Connections.Load()), Unauthenticated: s.node.Unauthenticated(),
		Clients: s.Local().Count(ToAll()), Rooms: hub.CountRooms(), Encrypted: hub.Encrypted(), Nodes: s.node.CountNodes(),

		Opened: st.Opened.Load(), HandshakeRefused: st.Refused.Load(), Authenticated: st.Authenticated.Load(),
		KeysAgreed: st.KeysAgreed.Load(), KeysRejected: st.KeysRejected.Load(), KeysFailed: st.KeysFailed.Load(),
		DecryptFailed: st.DecryptFailed.Load(), PlaintextRejected: st.PlaintextRejected.Load(), Unsealed: hub.Unsealed(),
		AuthRejected: st.AuthRejected.Load(), AuthFailed: st.AuthFailed.Load(), AuthTimeouts: st.AuthTimeouts.Load(),
		Evicted: st.Evicted.Load(), PreAuthFlood: st.PreAuthFlood.Load(), HeartbeatTimeouts: st.HeartbeatTimeouts.Load(),
		IdleTimeouts: st.IdleTimeouts.Load(), ProtocolErrors: st.ProtocolErrors.Load(), SlowClosed: st.SlowClosed.Load(),

		MessagesIn: st.MessagesIn.Load(), BadMessages: st.BadMessages.Load(), MessagesUnhandled: st.MessagesUnhandled.Load(),
		RateLimited: st.RateLimited.Load(), MessagesDiscarded: st.MessagesDiscarded.Load(),
		RoomsRejected: st.RoomsRejected.Load(), CallbackErrors: st.CallbackErrors.Load(),
		Delivered: hub.Delivered(), Dropped: hub.Refused(),
		DeliveriesLost: st.DeliveriesLost.Load(), BrokerLosses: st.BrokerLosses.Load(),
		BrokerLost: st.BrokerLost.Load(), Resyncs: st.Resyncs.Load(),
	}
}
