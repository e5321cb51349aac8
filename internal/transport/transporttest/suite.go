// Package transporttest is the test suite for all transports.
package transporttest

import (
	"net"
	"testing"

	"github.com/hearthws/hearth/internal/transport"
)

// A Backend is one kind of transport over one kind of connection.
type Backend struct {
	// New makes a transport.
	New func(transport.Config) (transport.Transport, error)

	// Dial makes a connected pair. The suite passes the server's side to Adopt, and closes the
	// client's.
	Dial func(t testing.TB) (server, client net.Conn)

	// HalfClose means that each side can close its writing side alone.
	HalfClose bool

	// Reset cuts the client's side so that the server's side gets an error, not io.EOF. It is nil
	// if the connection has no reset.
	Reset func(client net.Conn)

	// Clients is the number of connections in tests with many. Default 1000; set less if Dial is
	// slow.
	Clients int
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	if b.Clients == 0 {
		b.Clients = 1000
	}
	for _, tc := range []struct {
		name string
		run  func(*testing.T, Backend)
		skip bool
	}{
		{name: "Echo", run: testEcho},
		{name: "Coalesce", run: testCoalesce},
		{name: "Order", run: testOrder},
		{name: "FanOut", run: testFanOut},
		{name: "Early", run: testEarly},
		{name: "EarlyThenEnd", run: testEarlyThenEnd, skip: !b.HalfClose},
		{name: "WriteBeforeAdopted", run: testWriteBeforeAdopted},
		{name: "Addresses", run: testAddresses},
		{name: "Loops", run: testLoops},

		{name: "Backpressure", run: testBackpressure},
		{name: "BackpressureLargeWrite", run: testBackpressureLargeWrite},
		{name: "Backlogged", run: testBacklogged},
		{name: "NotifyBelow", run: testNotifyBelow},
		{name: "SlowReaderAlone", run: testSlowReaderAlone},
		{name: "Recall", run: testRecall},
		{name: "RecallAfterClose", run: testRecallAfterClose, skip: !b.HalfClose},
		{name: "Pause", run: testPause},
		{name: "PauseInData", run: testPauseInData},
		{name: "PauseToggles", run: testPauseToggles},

		{name: "HalfClosedReply", run: testHalfClosedReply, skip: !b.HalfClose},
		{name: "HalfClosedClose", run: testHalfClosedClose, skip: !b.HalfClose},
		{name: "HalfClosedBacklog", run: testHalfClosedBacklog, skip: !b.HalfClose},
		{name: "HalfClosedUnread", run: testHalfClosedUnread, skip: !b.HalfClose},
		{name: "HalfClosedUnwanted", run: testHalfClosedUnwanted, skip: !b.HalfClose},
		{name: "HalfClosedTimeout", run: testHalfClosedTimeout, skip: !b.HalfClose},
		{name: "PeerCloses", run: testPeerCloses},
		{name: "Reset", run: testReset, skip: b.Reset == nil},
		{name: "ResetNoticedByWrite", run: testResetNoticedByWrite, skip: b.Reset == nil},
		{name: "Closing", run: testClosing},
		{name: "ClosingNoticedByWrite", run: testClosingNoticedByWrite, skip: b.Reset == nil},
		{name: "ClosingAfterClose", run: testClosingAfterClose},
		{name: "CloseAfterFlush", run: testCloseAfterFlush, skip: !b.HalfClose},
		{name: "CloseBacklogged", run: testCloseBacklogged, skip: !b.HalfClose},
		{name: "CloseTimeout", run: testCloseTimeout},
		{name: "CloseTimeoutBacklogged", run: testCloseTimeoutBacklogged},
		{name: "CloseTimeoutFlood", run: testCloseTimeoutFlood},
		{name: "CloseTimeoutPaused", run: testCloseTimeoutPaused},
		{name: "Abort", run: testAbort},
		{name: "AbortInOpen", run: testAbortInOpen},
		{name: "AfterClosed", run: testAfterClosed},

		{name: "Storm", run: testStorm},
		{name: "Reuse", run: testReuse},
		{name: "AdoptAfterClose", run: testAdoptAfterClose},
		{name: "CloseUnderLoad", run: testCloseUnderLoad},
		{name: "CloseSoon", run: testCloseSoon},
		{name: "WakeStorm", run: testWakeStorm},
		{name: "TickMore", run: testTickMore},
		{name: "NoTick", run: testNoTick},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.skip {
				t.Skip("does not apply to this kind of connection")
			}
			tc.run(t, b)
		})
	}
}
