package fifo_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthws/hearth/internal/fifo"
)

// TestQueueMatchesSlice compares the ring with a slice.
func TestQueueMatchesSlice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var q fifo.Queue[int]
		var want []int
		next := 0
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			push := rapid.Bool().Draw(t, "push")
			for range rapid.IntRange(1, 100).Draw(t, "times") {
				if push {
					next++
					q.Push(next)
					want = append(want, next)
					continue
				}
				first := q.Peek()
				if len(want) == 0 {
					if first != nil || q.Pop() != 0 {
						t.Fatal("there is something in an empty queue")
					}
					break
				}
				if *first != want[0] || q.Pop() != want[0] {
					t.Fatalf("popped something else than %d", want[0])
				}
				want = want[1:]
			}
			if q.Len() != len(want) {
				t.Fatalf("%d values, want %d", q.Len(), len(want))
			}
			for i := range want {
				if got := *q.At(i); got != want[i] {
					t.Fatalf("value %d is %d, want %d", i, got, want[i])
				}
			}
		}
	})
}

// TestEmptyQueueFreesMemory checks that a queue that was long frees its memory.
func TestEmptyQueueFreesMemory(t *testing.T) {
	var q fifo.Queue[[64]byte]
	const n = 1 << 14
	if got := testing.AllocsPerRun(1, func() {
		for range n {
			q.Push([64]byte{})
		}
		for range n {
			q.Pop()
		}
	}); got < 5 {
		t.Errorf("%v allocations to grow to %d again: the memory was kept", got, n)
	}
}
