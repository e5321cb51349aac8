package node

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hearthws/hearth/broker"
)

// TestLossNotifierSerial: calls never overlap and no loss is missed, even when losses are added
// while the goroutine ends or notify exits its goroutine.
func TestLossNotifierSerial(t *testing.T) {
	t.Parallel()
	var active, overlaps, notified atomic.Int64
	ended := make(chan struct{})
	close(ended)
	n := &lossNotifier{stopping: ended, notify: func(l broker.Loss) {
		if active.Add(1) > 1 {
			overlaps.Add(1)
		}
		notified.Add(int64(l.Messages))
		runtime.Gosched()
		active.Add(-1)
		if l.Messages%7 == 3 {
			runtime.Goexit()
		}
	}}
	const losses = 80_000
	var producers sync.WaitGroup
	for range 4 {
		producers.Go(func() {
			for range losses / 4 {
				n.add(broker.Loss{Messages: 1, Channels: []string{}})
				runtime.Gosched()
			}
		})
	}
	producers.Wait()
	n.wait()
	if overlaps.Load() > 0 || notified.Load() != losses {
		t.Errorf("%d calls overlapped another; %d of %d losses were reported", overlaps.Load(), notified.Load(), losses)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	many := make([]string, maxLostChannels+1)
	for _, tt := range []struct {
		a, b     broker.Loss
		messages uint64
		channels int // -1: any channel
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
