package outqueue_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/transport/outqueue"
	"pgregory.net/rapid"
)

// TestQueueMatchesBytes compares a queue with a byte slice, with the calls in any order.
func TestQueueMatchesBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var q outqueue.Queue
		var want []byte
		scratch := make([]byte, 0, rapid.IntRange(1, 300).Draw(t, "scratch"))
		next := byte(0)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				sizes := rapid.IntRange(0, 40)
				for range rapid.SampledFrom([]int{1, 1, 1, 5, 700}).Draw(t, "times") {
					p := bytes.Repeat([]byte{next}, sizes.Draw(t, "size"))
					next++
					q.Push(p)
					want = append(want, p...)
				}
			},
			"next": func(t *rapid.T) {
				got := q.Next(scratch)
				if !bytes.HasPrefix(want, got) || len(got) == 0 && len(want) > 0 {
					t.Fatalf("Next = %v, queue holds %v", got, want)
				}
				n := rapid.IntRange(0, len(got)).Draw(t, "written")
				q.Advance(n)
				want = want[n:]
			},
			"vector": func(t *rapid.T) {
				got := bytes.Join(q.Vector(nil, 8), nil)
				if !bytes.HasPrefix(want, got) || len(got) == 0 && len(want) > 0 {
					t.Fatalf("Vector = %v, queue holds %v", got, want)
				}
				n := rapid.IntRange(0, len(got)).Draw(t, "written")
				q.Advance(n)
				want = want[n:]
			},
			"": func(t *rapid.T) {
				if q.Len() != len(want) {
					t.Fatalf("Len = %d, want %d", q.Len(), len(want))
				}
			},
		})
	})
}

func TestQueueMergesTinyPieces(t *testing.T) {
	t.Parallel()
	var q outqueue.Queue
	p := []byte{1, 2}
	for range 500_000 {
		q.Push(p)
	}
	if q.Refs() > 2000 {
		t.Errorf("%d pieces for %d bytes", q.Refs(), q.Len())
	}
}

func TestQueueKeepsLargePieces(t *testing.T) {
	t.Parallel()
	var q outqueue.Queue
	p := make([]byte, 100)
	for range 2000 {
		q.Push(p)
	}
	if v := q.Vector(nil, 1<<20); len(v) != 2000 || &v[1999][0] != &p[0] {
		t.Errorf("pieces of %d bytes were copied", len(p))
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	var d outqueue.Deadlines
	start := clock.Instant(1000)
	all := func(uint64) bool { return true }
	if _, ok := d.Wait(start, all); ok {
		t.Fatal("Wait on an empty queue: ok is true")
	}
	for k := range uint64(1000) {
		d.Add(k, start.Add(time.Duration(k)*time.Second))
	}
	if wait, ok := d.Wait(start.Add(-time.Second), all); !ok || wait != time.Second {
		t.Fatalf("Wait = %v, %v, want 1s", wait, ok)
	}
	for k := range uint64(500) {
		if got, ok := d.Due(start.Add(499 * time.Second)); !ok || got != k {
			t.Fatalf("Due = %d, %v, want %d", got, ok, k)
		}
	}
	if got, ok := d.Due(start.Add(499 * time.Second)); ok {
		t.Fatalf("Due = %d before its deadline", got)
	}
	d.Add(1000, start.Add(1000*time.Second))
	wait, ok := d.Wait(start.Add(499*time.Second), func(k uint64) bool { return k >= 900 })
	if !ok || wait != 401*time.Second {
		t.Fatalf("Wait with the first 900 not live = %v, %v, want 401s", wait, ok)
	}
	if _, ok := d.Wait(start, func(uint64) bool { return false }); ok {
		t.Fatal("Wait with no key live: ok is true")
	}
}
