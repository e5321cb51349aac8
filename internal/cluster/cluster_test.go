package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/google/uuid"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/internal/cluster"
	"github.com/hearthws/hearth/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", n) }

// A node is a cluster on a memory bus. It answers every call with its number of clients.
type node struct {
	*cluster.Cluster
	t      *testing.T
	id     string
	broker *testBroker

	mu      sync.Mutex
	clients int
	err     error
	block   chan struct{}   // answers wait until it is closed; nil: no wait
	asked   []protocol.Call // all except counts
	errs    []error         // returned by Deliver
}

// testBroker is a memory broker whose state and whose error of Hold can be set.
type testBroker struct {
	*memory.Broker
	mu      sync.Mutex
	state   broker.State
	holdErr error // returned by Hold; while it is set, no messages are delivered
	holds   int   // channels held and not released
}

func (b *testBroker) Hold(ctx context.Context, channels ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds += len(channels)
	if b.holdErr != nil {
		return b.holdErr
	}
	return b.Broker.Hold(ctx, channels...)
}

func (b *testBroker) Release(channels ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds -= len(channels)
}

// failHold makes Hold fail with err, and stops the delivery of messages. Nil ends both.
func (b *testBroker) failHold(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holdErr = err
}

func (b *testBroker) cutOff() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holdErr != nil
}

func (b *testBroker) Health() broker.Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	return broker.Health{State: b.state}
}

func (b *testBroker) setState(s broker.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = s
}

// newNode starts node number n, which has n clients.
func newNode(t *testing.T, bus *memory.Bus, n int) *node {
	t.Helper()
	return startNode(t, &testBroker{Broker: bus.Broker(), state: broker.StateOK}, n)
}

// pair starts the nodes 1 and 2. They know each other when it returns.
func pair(t *testing.T) (one, two *node) {
	t.Helper()
	bus := memory.NewBus(memory.Config{})
	one, two = newNode(t, bus, 1), newNode(t, bus, 2)
	one.counts(3)
	return one, two
}

// trio starts the nodes 1 to 3. They know each other when it returns.
func trio(t *testing.T) (one, two, three *node) {
	t.Helper()
	bus := memory.NewBus(memory.Config{})
	one, two, three = newNode(t, bus, 1), newNode(t, bus, 2), newNode(t, bus, 3)
	one.counts(6)
	return one, two, three
}

// startNode is like newNode, with the given broker.
func startNode(t *testing.T, b *testBroker, n int) *node {
	t.Helper()
	x := &node{t: t, id: id(n), clients: n, broker: b}
	x.Cluster = cluster.New(cluster.Config{
		ID: x.id, Name: fmt.Sprint("node ", n), Broker: x.broker, Log: slog.New(slog.DiscardHandler), Answer: x.answer, Claim: x.claim,
	})
	err := x.broker.Start(t.Context(), broker.Receiver{ServerID: x.id, Deliver: func(m protocol.Message) {
		if x.broker.cutOff() {
			return
		}
		if err := x.Deliver(m); err != nil {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.errs = append(x.errs, err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	x.Start(t.Context())
	t.Cleanup(func() {
		x.Close()
		_ = x.broker.Close()
	})
	return x
}

func (x *node) answer(ctx context.Context, c protocol.Call) (int, error) {
	x.mu.Lock()
	n, err, block := x.clients, x.err, x.block
	if c.Event != protocol.CallCount {
		x.asked = append(x.asked, c)
	} else {
		block = nil
	}
	x.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return n, err
}

// claim rejects the claim whose index is the number of the node.
func (x *node) claim(claims []protocol.Claim) (closed int, rejected []protocol.RejectedClaim) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked = append(x.asked, protocol.Call{Event: protocol.CallResume, Claims: claims})
	if x.clients < len(claims) {
		rejected = append(rejected, protocol.RejectedClaim{Claim: x.clients, Reason: x.id})
	}
	return x.clients, rejected
}

func (x *node) count(ctx context.Context) (int, error) {
	return x.Call(ctx, protocol.Call{Event: protocol.CallCount, Type: protocol.TypeBroadcast})
}

func (x *node) disconnect(ctx context.Context) (int, error) {
	return x.Call(ctx, protocol.Call{Event: protocol.CallDisconnect, Type: protocol.TypeUser, Target: "u", Code: 4100, Reason: "why"})
}

// counts fails the test unless a count returns want and no error.
func (x *node) counts(want int) {
	x.t.Helper()
	if n, err := x.count(context.Background()); n != want || err != nil {
		x.t.Errorf("%s counted %d, %v; want %d", x.id, n, err, want)
	}
}

// knows returns the shortened ids of the nodes that x knows.
func (x *node) knows() string {
	var ids []string
	for _, n := range x.Nodes() {
		ids = append(ids, strings.TrimLeft(n.ID[24:], "0"))
	}
	return strings.Join(ids, " ")
}

func missing(err error) []string {
	var e *cluster.Error
	if !errors.As(err, &e) {
		return nil
	}
	return e.Missing
}

func TestMembership(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus(memory.Config{})
		one := newNode(t, bus, 1)
		one.counts(1)
		two := newNode(t, bus, 2)
		two.counts(3) // the call waits until the list is complete
		three := newNode(t, bus, 3)
		synctest.Wait()
		for _, n := range []*node{one, two, three} {
			if len(n.Nodes()) != 3 || n.Nodes()[0].ID != n.id {
				t.Errorf("%s knows %s", n.id, n.knows())
			}
		}
		if all := one.Nodes(); all[1].Name != "node 2" || all[1].Since.IsZero() || one.Count() != 3 {
			t.Errorf("%+v", all)
		}
		time.Sleep(time.Minute)
		if one.knows() != "1 2 3" || three.knows() != "3 1 2" {
			t.Errorf("after a minute one knows %s, three %s", one.knows(), three.knows())
		}
		two.Close() // announces that it leaves
		synctest.Wait()
		begin := time.Now()
		one.counts(4)
		if one.knows() != "1 3" || time.Since(begin) > 0 {
			t.Errorf("one knows %s, and waited %v", one.knows(), time.Since(begin))
		}
	})
}

// TestKilled checks that a node that ended without announcing it is missing from calls until its
// timeout.
func TestKilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, three := trio(t)
		_ = two.broker.Close()
		begin := time.Now()
		n, err := one.count(t.Context())
		if n != 4 || !slices.Equal(missing(err), []string{two.id}) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 2*time.Second {
			t.Errorf("%d, %v after %v", n, err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if n, err := three.count(ctx); n != 4 || !slices.Equal(missing(err), []string{two.id}) || time.Since(begin) != 2050*time.Millisecond {
			t.Errorf("%d, %v after %v", n, err, time.Since(begin))
		}
		time.Sleep(23 * time.Second)
		one.counts(4)
		three.counts(4)
	})
}

// TestBrokerDown checks that a node whose broker is down keeps its list of nodes, and its calls
// fail instead of counting only its own clients.
func TestBrokerDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := pair(t)
		one.broker.setState(broker.StateDown)
		time.Sleep(time.Minute)
		n, err := one.count(t.Context())
		if n != 1 || !errors.Is(err, broker.ErrDown) || !slices.Equal(missing(err), []string{two.id}) {
			t.Errorf("%d, %v", n, err)
		}
		if two.knows() != "2" {
			t.Errorf("two still knows %s", two.knows())
		}
		one.broker.setState(broker.StateOK)
		time.Sleep(6 * time.Second)
		one.counts(3)
		two.counts(3)
	})
}

// TestDegraded checks that a node whose broker is degraded, and still delivers messages between
// nodes, removes a node that was killed.
func TestDegraded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, _ := trio(t)
		one.broker.setState(broker.StateDegraded) // until the end of the test
		_ = two.broker.Close()
		killed := time.Now()
		time.Sleep(10 * time.Second)
		if n, err := one.count(t.Context()); n != 4 || !slices.Equal(missing(err), []string{two.id}) {
			t.Errorf("%d, %v", n, err)
		}
		if seen := one.Nodes()[1].Seen; seen.After(killed) {
			t.Errorf("killed at %v, but seen at %v", killed, seen)
		}
		time.Sleep(15 * time.Second)
		begin := time.Now()
		one.counts(4)
		if one.knows() != "1 3" || time.Since(begin) > 0 {
			t.Errorf("one knows %s, and waited %v", one.knows(), time.Since(begin))
		}
		if one.broker.holds != 2 {
			t.Errorf("%d channels are held", one.broker.holds)
		}
	})
}

// TestCutOff checks that a node that does not receive messages, although its broker is not down,
// removes no node, and its calls fail at once.
func TestCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := pair(t)
		one.broker.setState(broker.StateDegraded)
		one.broker.failHold(errors.New("no"))
		cutOff := time.Now()
		time.Sleep(time.Minute)
		begin := time.Now()
		n, err := one.count(t.Context())
		if n != 1 || !errors.Is(err, broker.ErrDown) || !slices.Equal(missing(err), []string{two.id}) || time.Since(begin) > 0 {
			t.Errorf("%d, %v after %v", n, err, time.Since(begin))
		}
		if seen := one.Nodes()[1].Seen; seen.After(cutOff) {
			t.Errorf("received nothing since %v, but seen at %v", cutOff, seen)
		}
		// One still announces itself, so two waits for its answer.
		if n, err := two.count(t.Context()); n != 2 || !slices.Equal(missing(err), []string{one.id}) {
			t.Errorf("%d, %v", n, err)
		}
		one.broker.failHold(nil)
		time.Sleep(6 * time.Second) // still degraded
		one.counts(3)
		two.counts(3)
		one.broker.setState(broker.StateOK)
		time.Sleep(time.Minute)
		one.counts(3)
	})
}

// TestKilledWhileDown checks that the timeout of other nodes restarts when a node receives their
// messages again.
func TestKilledWhileDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := pair(t)
		one.broker.setState(broker.StateDown)
		_ = two.broker.Close()
		time.Sleep(time.Hour)
		one.broker.setState(broker.StateOK)
		time.Sleep(11 * time.Second)
		if one.knows() != "1 2" {
			t.Errorf("one knows %s, want 1 2: it could not receive messages of 2", one.knows())
		}
		time.Sleep(15 * time.Second)
		one.counts(1)
	})
}

// TestCalls checks that all nodes get the same call, and the failures of some are returned with the
// results of the others.
func TestCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, three := trio(t)
		if n, err := one.disconnect(t.Context()); n != 6 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		for _, x := range []*node{two, three} {
			c := x.asked[0]
			if c.Event != protocol.CallDisconnect || c.Type != protocol.TypeUser || c.Target != "u" || c.Code != 4100 || c.Reason != "why" || c.Within != 2*time.Second {
				t.Errorf("%+v", c)
			}
		}
		one.err, three.err = errors.New("mine"), errors.New(strings.Repeat("x", 1000))
		n, err := one.disconnect(t.Context())
		var e *cluster.Error
		if n != 6 || !errors.As(err, &e) || len(e.Failed) != 2 || e.Failed[0].Node != one.id || !errors.Is(err, one.err) || e.Cause != nil {
			t.Errorf("%d, %v", n, err)
		}
		if e.Failed[1].Node != three.id || len(e.Failed[1].Err.Error()) != protocol.MaxCallError {
			t.Errorf("%+v", e.Failed[1])
		}
		for _, bad := range []protocol.Call{
			{Event: "explode", Type: protocol.TypeUser, Target: "u"},
			{Event: protocol.CallDisconnect, Type: protocol.TypeRoom, Target: "r", Code: 4000},
			{Event: protocol.CallDisconnect, Type: protocol.TypeUser, Target: "u", Code: 1005},
			{Event: protocol.CallCount, Type: protocol.TypeUser},
			{Event: protocol.CallJoin, Type: protocol.TypeUser, Target: "u", Rooms: []string{"ws:x"}},
		} {
			if _, err := one.Call(t.Context(), bad); !errors.Is(err, protocol.ErrMessage) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	})
}

// TestSlowWork checks that slow calls do not delay counts, are bounded in number, and end with the
// caller's deadline.
func TestSlowWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := pair(t)
		two.block = make(chan struct{})
		var calls sync.WaitGroup
		var mu sync.Mutex
		missed, rejected := 0, 0
		for range 400 {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				_, err := one.disconnect(ctx)
				mu.Lock()
				defer mu.Unlock()
				if len(missing(err)) > 0 {
					missed++
				} else if err != nil {
					rejected++
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		one.counts(3)
		if time.Since(begin) > 0 {
			t.Errorf("a count waited %v", time.Since(begin))
		}
		calls.Wait()
		if missed < 256 || missed > 260 || rejected != 400-missed || len(two.asked) != 4 {
			t.Errorf("%d rejected, %d missing, %d begun", rejected, missed, len(two.asked))
		}
		synctest.Wait()
		two.block = nil
		if n, err := one.disconnect(t.Context()); n != 3 || err != nil {
			t.Errorf("afterwards: %d, %v", n, err)
		}
	})
}

// TestTooManyCalls checks that the number of calls of one node is limited.
func TestTooManyCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := pair(t)
		_ = two.broker.Close()
		var calls sync.WaitGroup
		for range 1024 {
			calls.Go(func() { _, _ = one.count(context.Background()) })
		}
		synctest.Wait()
		if _, err := one.count(t.Context()); !errors.Is(err, cluster.ErrTooManyCalls) {
			t.Errorf("got %v", err)
		}
		calls.Wait()
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := pair(t)
		two.block = make(chan struct{})
		failed := make(chan error, 1)
		go func() { // ends with Close
			_, err := one.disconnect(context.Background())
			failed <- err
		}()
		synctest.Wait()
		begin := time.Now()
		one.Close()
		if err := <-failed; !errors.Is(err, cluster.ErrClosed) || time.Since(begin) > 0 {
			t.Errorf("a call in progress: %v", err)
		}
		if _, err := one.count(t.Context()); !errors.Is(err, cluster.ErrClosed) {
			t.Errorf("a call afterwards: %v", err)
		}
		two.Close() // it still runs a call of one
		one.Close()
	})
}

// TestHostile checks that invalid and forged messages cause no work, and forged nodes expire.
func TestHostile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus(memory.Config{})
		one := newNode(t, bus, 1)
		send := func(from string, typ protocol.MessageType, event, data string) {
			m := protocol.Message{ServerID: from, Type: typ, Event: event, Data: json.RawMessage(data)}
			if typ == protocol.TypeNode {
				m.Target = one.id
			}
			_ = one.Deliver(m)
		}
		for _, from := range []string{"emitter", "x", id(7)} {
			for _, typ := range []protocol.MessageType{protocol.TypeNodes, protocol.TypeNode} {
				for _, event := range []string{"hello", "here", "bye", "count", "disconnect", "join", "leave", "x"} {
					for _, data := range []string{"", "null", "1", "[]", `{"call":-1}`, `{"call":1,"clients":-1}`, `{"call":1,"clients":1e300}`,
						`{"call":9,"type":"user","target":"u","code":1006}`, `{"call":9,"type":"planet"}`, `{"call":9,"type":"user","target":"u","rooms":["",7]}`,
						`{"name":"` + strings.Repeat("é", 100_000) + `"}`, `{"name":"` + strings.Repeat("x", 300<<10) + `"}`,
					} {
						send(from, typ, event, data)
					}
				}
			}
		}
		if len(one.asked) > 0 {
			t.Errorf("it ran %+v", one.asked)
		}
		for i := range 5000 {
			send(id(100+i), protocol.TypeNodes, "hello", `{"name":"x"}`)
		}
		if n := one.Count(); n != 1+1024 {
			t.Errorf("%d nodes are in the list", n)
		}
		for _, n := range one.Nodes() {
			if len(n.Name) > protocol.MaxNodeName {
				t.Errorf("a name of %d bytes", len(n.Name))
			}
		}
		time.Sleep(25 * time.Second)
		one.counts(1)
	})
}

// TestFalseAnswers checks that the answer of each node counts once, and answers to other calls do
// not count.
func TestFalseAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := pair(t)
		two.block = make(chan struct{})
		result := make(chan int, 1)
		go func() { // ends with the call
			n, _ := one.disconnect(context.Background())
			result <- n
		}()
		synctest.Wait()
		for _, from := range []int{2, 2, 3} {
			for call := range 5 {
				data := fmt.Sprintf(`{"call":%d,"clients":10}`, call)
				_ = one.Deliver(protocol.Message{ServerID: id(from), Type: protocol.TypeNode, Target: one.id, Event: "disconnect", Data: json.RawMessage(data)})
			}
		}
		if n := <-result; n != 11 {
			t.Errorf("%d clients", n)
		}
	})
}

// TestStartedCutOff checks that calls fail on a node whose channels were not confirmed at its
// start.
func TestStartedCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus(memory.Config{})
		newNode(t, bus, 1)
		two := startNode(t, &testBroker{Broker: bus.Broker(), state: broker.StateOK, holdErr: errors.New("no answer in time")}, 2)
		time.Sleep(time.Second)
		begin := time.Now()
		if n, err := two.count(t.Context()); n != 2 || !errors.Is(err, broker.ErrDown) || time.Since(begin) > 0 {
			t.Errorf("%d, %v after %v", n, err, time.Since(begin))
		}
		two.broker.failHold(nil)
		time.Sleep(6 * time.Second)
		two.counts(3)
	})
}

// TestTooManyNodes checks that a call that cannot wait for all nodes returns an error, until the
// timeout of the nodes that were ignored.
func TestTooManyNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one := newNode(t, memory.NewBus(memory.Config{}), 1)
		for i := range 1 + 1024 {
			_ = one.Deliver(protocol.Message{ServerID: id(100 + i), Type: protocol.TypeNodes, Event: "hello", Data: json.RawMessage(`{"name":"x"}`)})
		}
		for i := range 1024 {
			_ = one.Deliver(protocol.Message{ServerID: id(100 + i), Type: protocol.TypeNodes, Event: "bye", Data: json.RawMessage(`{"name":"x"}`)})
		}
		time.Sleep(time.Second)
		n, err := one.count(t.Context())
		var e *cluster.Error
		if n != 1 || !errors.As(err, &e) || e.Cause == nil || len(e.Missing) > 0 {
			t.Errorf("%d, %v", n, err)
		}
		time.Sleep(20 * time.Second)
		one.counts(1)
	})
}

// TestCountsSkipUnresponsive checks that counts skip a node that did not answer an earlier count,
// until it sends a message. Other calls still wait for it.
func TestCountsSkipUnresponsive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, three := trio(t)
		time.Sleep(time.Second)
		two.broker.failHold(errors.New("frozen"))
		two.broker.setState(broker.StateDown)
		incomplete := func(what string, call func(context.Context) (int, error), timeout, wait time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			begin := time.Now()
			n, err := call(ctx)
			if n != 4 || !slices.Equal(missing(err), []string{two.id}) || time.Since(begin) != wait {
				t.Errorf("%s: %d, %v after %v", what, n, err, time.Since(begin))
			}
		}
		incomplete("a count with a short timeout", one.count, 50*time.Millisecond, 50*time.Millisecond)
		incomplete("the first count", one.count, time.Second, time.Second)
		incomplete("the next", one.count, time.Second, 0)
		incomplete("a disconnect", one.disconnect, time.Second, time.Second)
		incomplete("a count of another node", three.count, time.Second, time.Second)
		two.broker.failHold(nil)
		two.broker.setState(broker.StateOK)
		time.Sleep(6 * time.Second)
		one.counts(6)
		three.counts(6)
	})
}

// TestClaim checks that a claim collects the rejections of all nodes, this one included, and what
// it reports when nodes do not answer.
func TestClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, three := trio(t)
		time.Sleep(time.Second)
		var claims []protocol.Claim
		for i := range byte(5) {
			client := [16]byte{i}
			protocol.StampClientID(&client)
			claims = append(claims, protocol.Claim{Client: uuid.UUID(client).String(), Generation: uint32(i), User: "u", Issued: time.Now().UTC().Round(0)})
		}
		claim := func() ([]int, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			rejected, err := one.Claim(ctx, claims)
			var of []int
			for _, r := range rejected {
				if r.Reason != id(r.Claim) {
					t.Errorf("claim %d was rejected because of %q", r.Claim, r.Reason)
				}
				of = append(of, r.Claim)
			}
			slices.Sort(of)
			return of, err
		}
		if got, err := claim(); !slices.Equal(got, []int{1, 2, 3}) || err != nil {
			t.Errorf("rejected %v, %v", got, err)
		}
		for _, x := range []*node{one, two, three} {
			if len(x.asked) != 1 || !slices.Equal(x.asked[0].Claims, claims) {
				t.Errorf("node %s was asked %+v", x.id, x.asked)
			}
		}

		two.broker.failHold(errors.New("frozen"))
		two.broker.setState(broker.StateDown)
		time.Sleep(time.Second) // since its last message
		for _, wait := range []time.Duration{time.Second, 0} {
			begun := time.Now()
			got, err := claim()
			var partial *cluster.Error
			if !slices.Equal(got, []int{1, 3}) || !errors.As(err, &partial) || !partial.Silent() || time.Since(begun) != wait {
				t.Errorf("rejected %v, %v after %v", got, err, time.Since(begun))
			}
		}
		one.broker.setState(broker.StateDown)
		_, err := claim()
		var partial *cluster.Error
		if !errors.As(err, &partial) || partial.Silent() {
			t.Errorf("a node that is cut off: %v", err)
		}
		if _, err := one.Claim(t.Context(), nil); !errors.Is(err, protocol.ErrMessage) {
			t.Errorf("no claims: %v", err)
		}
	})
}
