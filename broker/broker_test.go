package broker_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
)

func TestStates(t *testing.T) {
	t.Parallel()
	for i, want := range []string{"idle", "ok", "degraded", "down", "unknown"} {
		if got := broker.State(i).String(); got != want {
			t.Errorf("state %d is %q, want %q", i, got, want)
		}
		text, err := json.Marshal(broker.State(i))
		if err != nil || string(text) != `"`+want+`"` {
			t.Errorf("state %d in JSON is %s, %v", i, text, err)
		}
		again := broker.State(99)
		if err := json.Unmarshal(text, &again); (err == nil) != (want != "unknown") || err == nil && again != broker.State(i) {
			t.Errorf("%s is read as %v, %v", text, again, err)
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]any{
		`"State":"down","Since":"2026-03-01T09:30:00Z","Reason":"lost",`: broker.Health{
			State: broker.StateDown, Since: time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC), Reason: "lost"},
		`"Malformed":0,"Err":"broker: closed"}`: broker.Health{Err: broker.ErrClosed},
		`"Channels":["ws:room:r"],`:             broker.Loss{Channels: []string{"ws:room:r"}, Cause: broker.ErrDown},
		`"Cause":"broker: not connected"}`:      broker.Loss{Cause: broker.ErrDown},
	} {
		if got, err := json.Marshal(v); err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s, %v; want it to have %s", got, err, want)
		}
	}
}
