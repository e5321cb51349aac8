package node

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hearthws/hearth/broker"
)

// TestLossReaderTellsOneAtATime: however the ends of its goroutine and new losses meet.
func TestLossReaderTellsOneAtATime(t *testing.T) {
	t.Parallel()
	var at, together, told atomic.Int64
	ended := make(chan struct{})
	close(ended)
	r := &lossNotifier{stopping: ended, notify: func(l broker.Loss) {
		if at.Add(1) > 1 {
			together.Add(1)
		}
		told.Add(int64(l.Messages))
		runtime.Gosched()
		at.Add(-1)
		if l.Messages%7 == 3 {
			runtime.Goexit()
		}
	}}
	const losses = 80_000
	var tellers sync.WaitGroup
	for range 4 {
		tellers.Go(func() {
			for range losses / 4 {
				r.add(broker.Loss{Messages: 1, Channels: []string{}})
				runtime.Gosched()
			}
		})
	}
	tellers.Wait()
	r.wait()
	if together.Load() > 0 || told.Load() != losses {
		t.Errorf("%d calls beside another, %d of %d losses told", together.Load(), told.Load(), losses)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	many := make([]string, maxLostChannels+1)
	for _, tt := range []struct {
		a, b     broker.Loss
		messages uint64
		channels int // -1: any
	}{
		{broker.Loss{Messages: 2, Channels: []string{"a", "b"}}, broker.Loss{Messages: 3, Channels: []string{"b", "c"}}, 5, 3},
		{broker.Loss{Messages: 2, Channels: []string{"a"}}, broker.Loss{Channels: []string{"a"}}, 0, 1},
		{broker.Loss{Messages: 2, Channels: []string{"a"}}, broker.Loss{Messages: 1}, 3, -1},
		{broker.Loss{Messages: 2}, broker.Loss{Messages: 1, Channels: []string{"a"}}, 3, -1},
		{broker.Loss{Messages: 2, Channels: []string{"a"}}, broker.Loss{Messages: 1, Channels: many}, 3, -1},
	} {
		m := mergeLosses(tt.a, tt.b)
		channels := len(m.Channels)
		if m.Channels == nil {
			channels = -1
		}
		if m.Messages != tt.messages || channels != tt.channels {
			t.Errorf("%+v and %+v: %+v", tt.a, tt.b, m)
		}
	}
}
