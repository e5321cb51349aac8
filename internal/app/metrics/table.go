package metrics

import "github.com/hearthws/hearth/broker"

// one returns a metric without labels.
func one[T int | uint64](name, help string, value func(*reading) T) metric {
	return metric{name: name, help: help, value: func(r *reading) float64 { return float64(value(r)) }}
}

// by returns a metric for one value of a label.
func by[T int | uint64](name, help, label, labelValue string, value func(*reading) T) metric {
	m := one(name, help, value)
	m.label, m.labelValue = label, labelValue
	return m
}

// table lists the series. Names and labels are part of the interface: dashboards and alerts use
// them. A label has a fixed set of values.
var table = concat(gauges(), clients(), closes(), messages(), brokers(), tickets(), histories())

func concat(parts ...[]metric) (all []metric) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func gauges() []metric {
	return []metric{
		one("hearth_connections", "Open sockets of clients, authenticated or not.", func(r *reading) int { return r.Connections }),
		one("hearth_clients", "Authenticated clients.", func(r *reading) int { return r.Clients }),
		one("hearth_clients_unauthenticated", "Clients that have not authenticated yet.", func(r *reading) int { return r.Unauthenticated }),
		one("hearth_clients_encrypted", "Authenticated clients that are encrypted.", func(r *reading) int { return r.Encrypted }),
		one("hearth_rooms", "Rooms with members on this server.", func(r *reading) int { return r.Rooms }),
		one("hearth_nodes", "Known servers that share the broker, this one included.", func(r *reading) int { return r.Nodes }),
		one("hearth_pending_bytes", "Bytes that wait for the slowest client.", func(r *reading) int { return r.pending }),
	}
}

func clients() []metric {
	const (
		authHelp   = "Authentications of new clients by result. Rejected: bad credentials; failed: they could not be checked."
		reauthHelp = "New credentials of authenticated clients by result."
		keysHelp   = "Encryption handshakes by result."
	)
	return []metric{
		one("hearth_clients_opened_total", "Connections that became clients.", func(r *reading) uint64 { return r.Opened }),
		one("hearth_handshakes_rejected_total", "Requests that were answered with an HTTP error instead of an upgrade.", func(r *reading) uint64 { return r.HandshakesRejected }),
		by("hearth_authentications_total", authHelp, "result", "accepted", func(r *reading) uint64 { return r.Authenticated }),
		by("hearth_authentications_total", authHelp, "result", "rejected", func(r *reading) uint64 { return r.AuthRejected }),
		by("hearth_authentications_total", authHelp, "result", "failed", func(r *reading) uint64 { return r.AuthFailed }),
		by("hearth_reauthentications_total", reauthHelp, "result", "accepted", func(r *reading) uint64 { return r.Reauthenticated }),
		by("hearth_reauthentications_total", reauthHelp, "result", "rejected", func(r *reading) uint64 { return r.ReauthRejected }),
		by("hearth_key_exchanges_total", keysHelp, "result", "accepted", func(r *reading) uint64 { return r.KeysAgreed }),
		by("hearth_key_exchanges_total", keysHelp, "result", "rejected", func(r *reading) uint64 { return r.KeysRejected }),
		by("hearth_key_exchanges_total", keysHelp, "result", "failed", func(r *reading) uint64 { return r.KeysFailed }),
	}
}

func closes() []metric {
	cause := func(labelValue string, value func(*reading) uint64) metric {
		return by("hearth_closes_total", "Clients that the server closed, by cause. Not counted: closes by the application, and at shutdown.", "cause", labelValue, value)
	}
	return []metric{
		cause("auth_rejected", func(r *reading) uint64 { return r.AuthRejected }),
		cause("auth_failed", func(r *reading) uint64 { return r.AuthFailed }),
		cause("auth_timeout", func(r *reading) uint64 { return r.AuthTimeouts }),
		cause("key_rejected", func(r *reading) uint64 { return r.KeysRejected }),
		cause("key_failed", func(r *reading) uint64 { return r.KeysFailed }),
		cause("expired", func(r *reading) uint64 { return r.Expired }),
		cause("decrypt_failed", func(r *reading) uint64 { return r.DecryptFailed }),
		cause("plaintext", func(r *reading) uint64 { return r.PlaintextRejected }),
		cause("evicted", func(r *reading) uint64 { return r.Evicted }),
		cause("preauth_flood", func(r *reading) uint64 { return r.PreAuthFlood }),
		cause("rate_limit", func(r *reading) uint64 { return r.RateLimited }),
		cause("heartbeat", func(r *reading) uint64 { return r.HeartbeatTimeouts }),
		cause("idle", func(r *reading) uint64 { return r.IdleTimeouts }),
		cause("protocol_error", func(r *reading) uint64 { return r.ProtocolErrors }),
		cause("slow", func(r *reading) uint64 { return r.SlowClosed }),
	}
}

func messages() []metric {
	const droppedHelp = "Messages that were not delivered to a client, one for each client, by cause."
	return []metric{
		one("hearth_messages_received_total", "Messages from clients.", func(r *reading) uint64 { return r.MessagesIn }),
		one("hearth_messages_invalid_total", "Messages from clients that were not JSON or had no event.", func(r *reading) uint64 { return r.BadMessages }),
		one("hearth_messages_unhandled_total", "Messages from clients with an event that has no handler.", func(r *reading) uint64 { return r.MessagesUnhandled }),
		one("hearth_messages_discarded_total", "Messages from clients that were not handled because the client was closed.", func(r *reading) uint64 { return r.MessagesDiscarded }),
		one("hearth_messages_delivered_total", "Messages handed to connections, one for each client.", func(r *reading) uint64 { return r.Delivered }),
		by("hearth_messages_dropped_total", droppedHelp, "cause", "slow", func(r *reading) uint64 { return r.Dropped }),
		by("hearth_messages_dropped_total", droppedHelp, "cause", "encryption", func(r *reading) uint64 { return r.Unsealed }),
		one("hearth_answers_late_total", "Answers of clients to questions that were over.", func(r *reading) uint64 { return r.AnswersLate }),
		one("hearth_rooms_rejected_total", "Rooms that clients asked for and were not allowed to join.", func(r *reading) uint64 { return r.RoomsRejected }),
		one("hearth_callback_errors_total", "Callbacks that failed.", func(r *reading) uint64 { return r.CallbackErrors }),
	}
}

func brokers() []metric {
	state := func(s broker.State) metric {
		return by("hearth_broker_state", "1 for the state of the broker, 0 for the other states.", "state", s.String(), func(r *reading) int {
			if r.health.State == s {
				return 1
			}
			return 0
		})
	}
	return []metric{
		state(broker.StateOK), state(broker.StateDegraded), state(broker.StateDown), state(broker.StateIdle),
		one("hearth_broker_published_total", "Messages given to the broker.", func(r *reading) uint64 { return r.health.Published }),
		one("hearth_broker_received_total", "Messages received from the broker.", func(r *reading) uint64 { return r.health.Delivered }),
		one("hearth_broker_dropped_total", "Messages of this server that were never published.", func(r *reading) uint64 { return r.health.Dropped }),
		one("hearth_broker_uncertain_total", "Messages of this server that were published to a Redis that was no longer the master.", func(r *reading) uint64 { return r.health.Uncertain }),
		one("hearth_broker_malformed_total", "Invalid messages from the broker, which were ignored.", func(r *reading) uint64 { return r.health.Malformed }),
		one("hearth_broker_losses_total", "Times at which messages of other servers may have been missed.", func(r *reading) uint64 { return r.BrokerLosses }),
		one("hearth_broker_lost_total", "Messages of other servers that are known to be missed.", func(r *reading) uint64 { return r.BrokerLost }),
		one("hearth_broker_overflows_total", "Messages of other servers that were lost because the send queue was full; part of hearth_broker_lost_total.", func(r *reading) uint64 { return r.DeliveriesLost }),
		one("hearth_resyncs_total", "Clients that were sent the event resync.", func(r *reading) uint64 { return r.Resyncs }),
	}
}

func tickets() []metric {
	result := func(labelValue string, value func(*reading) uint64) metric {
		return by("hearth_resumes_total", "Clients that came with a ticket, by result.", "result", labelValue, value)
	}
	return []metric{
		one("hearth_tickets_issued_total", "Tickets that were sent to clients.", func(r *reading) uint64 { return r.Tickets.Issued }),
		one("hearth_tickets_failed_total", "Tickets that could not be made.", func(r *reading) uint64 { return r.Tickets.Failed }),
		result("accepted", func(r *reading) uint64 { return r.Tickets.Accepted }),
		result("invalid", func(r *reading) uint64 { return r.Tickets.Invalid }),
		result("expired", func(r *reading) uint64 { return r.Tickets.Expired }),
		result("used", func(r *reading) uint64 { return r.Tickets.Used }),
		result("revoked", func(r *reading) uint64 { return r.Tickets.Revoked }),
		result("unavailable", func(r *reading) uint64 { return r.Tickets.Unavailable }),
		one("hearth_absences_displaced_total", "Clients that may resume, and whose end was reported early because there were too many.",
			func(r *reading) uint64 { return r.Tickets.Displaced }),
	}
}

func histories() []metric {
	return []metric{
		one("hearth_history_fetched_total", "Messages that the broker had lost, and that were read from the history.", func(r *reading) uint64 { return r.Fetched }),
		one("hearth_history_recovered_total", "Missed messages that clients got from the history when they joined a room.", func(r *reading) uint64 { return r.Recovered }),
		one("hearth_history_unrecovered_total", "Rooms that clients joined without the messages that they had missed.", func(r *reading) uint64 { return r.Unrecovered }),
		one("hearth_history_gaps_total", "Times that messages of a room were missing and could not be recovered.", func(r *reading) uint64 { return r.Gaps }),
		one("hearth_history_interrupted_total", "Clients that were taken out of a room because of missing messages.", func(r *reading) uint64 { return r.Interrupted }),
		one("hearth_history_unpositioned_total", "Messages to rooms with history from senders that do not know the history.", func(r *reading) uint64 { return r.Unpositioned }),
	}
}
