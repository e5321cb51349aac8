package hub

import (
	"errors"
	"sync"

	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/seal"
)

// errExit stands for a Transform that has ended its goroutine.
var errExit = errors.New("transformer has ended its goroutine")

// transformers run what may block: a goroutine for each member whose message is being transformed, but of one fan-out for
// so many members at a time only. A member whose turn has not come waits without a goroutine.
type transformers struct {
	limit int            // set by New, then read-only
	done  sync.WaitGroup // one for each goroutine
}

// turns are those of the members who get one message.
type turns struct {
	mu      sync.Mutex // guards the fields below; innermost
	free    int
	waiting fifo.Queue[*outlet]
}

func (t *transformers) turns() *turns { return &turns{free: t.limit} }

// begin has the oldest batch of o transformed when its turn comes. On the lane's loop.
func (t *transformers) begin(o *outlet) {
	if o.work[0].turns.enter(o) {
		t.done.Add(1)
		go t.run(o, false) // ends when it is nobody's turn any more; Hub.Wait waits for it
	}
}

// enter reports whether it is o's turn. If not, leave returns it when it is.
func (t *turns) enter(o *outlet) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.free > 0 {
		t.free--
		return true
	}
	t.waiting.Push(o)
	return false
}

// leave ends a turn and returns the member whose turn it is now, if any.
func (t *turns) leave() *outlet {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting.Len() == 0 {
		t.free++
		return nil
	}
	return t.waiting.Pop()
}

// run transforms what o has, and goes on with those who wait for a turn with the same message. skip: the first message is
// lost.
func (t *transformers) run(o *outlet, skip bool) {
	defer t.done.Done()
	defer func() {
		if o != nil { // the application has ended the goroutine (runtime.Goexit): another one goes on behind that message
			o.lost(errExit)
			t.done.Add(1)
			go t.run(o, true)
		}
	}()
	for o != nil {
		b := o.work[0]
		for i := o.from; i < len(b.msgs); i++ {
			r := sealed{outlet: o, taken: 1, reserved: sealedSize(b.msgs[i]), done: i == len(b.msgs)-1}
			if !skip {
				r.transform(b.msgs[i].Payload())
			}
			skip = false
			o.from = i + 1
			o.member.lane.bring(r) // with done, o is the loop's again
		}
		o = b.turns.leave()
	}
}

// transform makes the frame of one message.
func (r *sealed) transform(payload []byte) {
	replacement, err := r.Transform(payload)
	if err != nil {
		r.lost(err)
		return
	}
	if replacement != nil {
		payload = replacement
	}
	if r.Cipher == nil {
		r.frames, r.messages = ws.AppendFrame(nil, ws.OpText, payload), 1
		return
	}
	r.frames = make([]byte, 0, ws.FrameSize(seal.EnvelopeSize(len(payload))))
	r.add(payload)
}
