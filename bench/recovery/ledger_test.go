package main

import "testing"

func TestLedger(t *testing.T) {
	t.Parallel()
	const reported = -1 // in place of a number: the server says that messages may be missing
	for name, tc := range map[string]struct {
		got  []int
		want tally
	}{
		"all":                    {[]int{1, 2, 3, 4, 5}, tally{Live: 5}},
		"nothing":                {nil, tally{Missed: 5}},
		"a gap":                  {[]int{1, 2, 5}, tally{Live: 3, Missed: 2}},
		"the last are missing":   {[]int{1, 2, 3}, tally{Live: 3, Missed: 2}},
		"twice":                  {[]int{1, 2, 2, 3, 4, 5}, tally{Live: 5, Duplicates: 1}},
		"out of order":           {[]int{1, 3, 2, 4, 5}, tally{Live: 5, Disordered: 1}},
		"an old one again":       {[]int{1, 2, 3, 1, 4, 5}, tally{Live: 5, Duplicates: 1}},
		"reported":               {[]int{1, 2, reported, 5}, tally{Live: 3, Reported: 2}},
		"reported to the end":    {[]int{1, 2, reported}, tally{Live: 2, Reported: 3}},
		"reported without a gap": {[]int{1, 2, reported, 3, 4, 5}, tally{Live: 5}},
		"a report ends":          {[]int{1, reported, 3, 5}, tally{Live: 3, Reported: 1, Missed: 1}},
		"reported and late":      {[]int{1, reported, 4, 2, 5}, tally{Live: 4, Reported: 1, Disordered: 1}},
		"reported twice":         {[]int{reported, 2, reported, 4, 5}, tally{Live: 3, Reported: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const sent = 5
			var l ledger
			for _, n := range tc.got {
				if n == reported {
					l.report()
				} else {
					l.add(n, false)
				}
			}
			var got tally
			got.settle(&l, sent)
			tc.want.Expected = sent
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			perfect := tc.want == tally{Expected: sent, Live: sent}
			if got.perfect() != perfect || (got.received() == 100) != (tc.want.Live == sent) {
				t.Errorf("perfect %t, received %v: %v", got.perfect(), got.received(), got)
			}
		})
	}
}

func TestLedgerCountsWhatWasRecovered(t *testing.T) {
	t.Parallel()
	var got tally
	for range 2 {
		var l ledger
		for n := 1; n <= 200; n++ {
			if fresh := l.add(n, n > 150); !fresh {
				t.Errorf("%d is not new", n)
			}
		}
		got.settle(&l, 200)
	}
	if want := (tally{Expected: 400, Live: 300, Recovered: 100}); got != want || !got.perfect() {
		t.Errorf("got %v, want %v", got, want)
	}
}
