package redis

import (
	"errors"
	"testing"
	"time"
)

// TestLateProbe checks that a probe that has arrived is not missing, even if its time was up before
// maintain looked.
func TestLateProbe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		seen string
		left bool
		want error
	}{
		{"it came", "p", true, nil},
		{"an older one came", "o", true, errProbeLost},
		{"none came", "", true, errProbeLost},
		{"it never left", "", false, nil},
	} {
		began := time.Now()
		s := &subscription{health: &health{}, probes: make(chan string, 1), probeSent: "p", probeSentAt: began}
		if tt.seen != "" {
			s.probes <- tt.seen
		}
		c := newCall(1)
		if tt.left {
			c.errs[0] = nil
			close(c.done)
		}
		if err := (&maintainer{s: s, probe: c}).probeOverdue(); !errors.Is(err, tt.want) || s.probeSent != "" {
			t.Errorf("%s: error %v, want %v; still waiting for %q", tt.name, err, tt.want, s.probeSent)
		}
		if came := s.provenAt.Equal(began); came != (tt.seen == "p") {
			t.Errorf("%s: proven: %v", tt.name, came)
		}
	}
}
