package hearth

// Stats are a server's counters since it was made, and a few gauges.
type Stats struct {
	// Gauges.
	Connections     int // sockets that are open, authenticated or not
	Unauthenticated int
	Clients         int // authenticated
	Encrypted       int // of those
	Rooms           int // with members, clients' own not counted
	Nodes           int // servers that share the broker, this one included, as far as it knows

	// Connections.
	Opened           uint64
	HandshakeRefused uint64 // answered with an HTTP error
	Authenticated    uint64
	AuthRejected     uint64 // 4003, by the callback's decision
	AuthFailed       uint64 // 4003, because the callback failed
	AuthTimeouts     uint64 // 4001
	KeysAgreed       uint64 // encryption handshakes that succeeded
	KeysRejected     uint64 // 4004: the client has sent no key, or a bad one
	KeysFailed       uint64 // 4004, because Config.Handshake failed
	Undecrypted      uint64 // 1008: an encrypted message did not decrypt
	InClear          uint64 // 1008: Config.EncryptedOnly
	Evicted          uint64 // 4001, to make room for newer clients: Limits.MaxUnauthenticated and …PerAddr
	TooEager         uint64 // 1008: Limits.UnauthenticatedMessages
	HeartbeatLost    uint64 // 4002
	IdleTimeouts     uint64 // cut off, because not even pings were answered
	ProtocolErrors   uint64 // 1002, 1007, 1009
	SlowClosed       uint64 // 1013

	// Messages.
	MessagesIn      uint64 // from clients
	BadMessages     uint64 // not JSON, or without an event
	MessagesUnheard uint64 // nobody handles that event
	RoomsRefused    uint64 // joins that were not allowed, one for each room
	// CallbackErrors counts callbacks that returned an error or panicked: all but Authenticate, and but those that failed
	// because their client had disconnected.
	CallbackErrors uint64
	Delivered      uint64 // messages handed to connections, one for each client
	Dropped        uint64 // messages dropped for clients that were too slow, one for each client
	Unsealed       uint64 // messages lost because they could not be encrypted, one for each client
	DeliveriesLost uint64 // messages of other nodes that the send queue had no room for; BrokerLost counts them, too
	BrokerLosses   uint64 // times that messages of other nodes may have been missed
	BrokerLost     uint64 // messages of other nodes that are known to have been missed, where they can be counted
	Resyncs        uint64 // clients that were told of that: Config.Resync

	RateLimited uint64 // 1008: Limits.MessageRate and ByteRate

	// MessagesDiscarded were received from clients and not handled, because the client was closed or a
	// shutdown had no time left.
	MessagesDiscarded uint64
}

// Stats returns the counters. Each is exact, but they are not read at the same instant.
func (s *Server[A, M]) Stats() Stats {
	st, hub := s.node.Stats(), s.node.Hub()
	return Stats{
		Connections: int(st.Connections.Load()), Unauthenticated: s.node.Unauthenticated(),
		Clients: s.Local().Count(ToAll()), Rooms: hub.CountRooms(), Encrypted: hub.Encrypted(), Nodes: s.node.CountNodes(),

		Opened: st.Opened.Load(), HandshakeRefused: st.Refused.Load(), Authenticated: st.Authenticated.Load(),
		KeysAgreed: st.KeysAgreed.Load(), KeysRejected: st.KeysRejected.Load(), KeysFailed: st.KeysFailed.Load(),
		Undecrypted: st.Undecrypted.Load(), InClear: st.InClear.Load(), Unsealed: hub.Unsealed(),
		AuthRejected: st.AuthRejected.Load(), AuthFailed: st.AuthFailed.Load(), AuthTimeouts: st.AuthTimeouts.Load(),
		Evicted: st.Evicted.Load(), TooEager: st.TooEager.Load(), HeartbeatLost: st.HeartbeatLost.Load(),
		IdleTimeouts: st.IdleTimeouts.Load(), ProtocolErrors: st.ProtocolErrors.Load(), SlowClosed: st.SlowClosed.Load(),

		MessagesIn: st.MessagesIn.Load(), BadMessages: st.BadMessages.Load(), MessagesUnheard: st.MessagesUnheard.Load(),
		RateLimited: st.RateLimited.Load(), MessagesDiscarded: st.MessagesDiscarded.Load(),
		RoomsRefused: st.RoomsRefused.Load(), CallbackErrors: st.CallbackErrors.Load(),
		Delivered: hub.Delivered(), Dropped: hub.Refused(),
		DeliveriesLost: st.DeliveriesLost.Load(), BrokerLosses: st.BrokerLosses.Load(),
		BrokerLost: st.BrokerLost.Load(), Resyncs: st.Resyncs.Load(),
	}
}
