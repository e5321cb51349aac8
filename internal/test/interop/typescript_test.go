package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/hearthws/hearth"
)

// TestTypeScriptClient runs the TypeScript client on Bun, against the reference and against Hearth.
// Bun compiles it, so that the test needs nothing else of sdk/ts.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	w := newDeployment(t)
	_, file, _, _ := runtime.Caller(0)
	program := filepath.Join(filepath.Dir(file), "../../../sdk/ts/test/interop.ts")
	cmd := exec.CommandContext(t.Context(), install(t).Bun, program, "ws://"+w.ref.addr+"/ws", "ws://"+w.exact.addr+"/ws")
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	late := time.AfterFunc(timeout, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if line, err := bufio.NewReader(out).ReadString('\n'); line == "ready\n" {
		must(t, w.emitter.Send(t.Context(), hearth.ToRoom("lobby"), "news", json.RawMessage(`{"n":1}`)))
	} else {
		t.Errorf("got %q, %v, want ready", line, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the client failed: %v\n%s", err, failure.Bytes())
	}
}
