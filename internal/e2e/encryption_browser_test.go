package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/hearthws/hearth"
)

// TestWebCrypto exchanges keys and messages with a client that uses only WebCrypto and no code of
// this project.
func TestWebCrypto(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		const missing = "NO NODE FOUND: ENCRYPTION NOT TESTED AGAINST A LIVE WEBCRYPTO (install nodejs, 20 or later)"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	messages := make(chan hearth.Message, 10)
	r := start(t, config{Encryption: hearth.Encryption{Mode: hearth.EncryptionRequired, Only: true}, Message: func(_ context.Context, _ *client, m hearth.Message) error {
		messages <- m
		return nil
	}})
	p := r.peer()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	program := exec.CommandContext(ctx, node, "testdata/webcrypto/client.mjs")
	program.Stderr = os.Stderr
	in, err := program.StdinPipe()
	must(t, err)
	out, err := program.StdoutPipe()
	must(t, err)
	must(t, program.Start())
	pass := make(chan error, 1)
	go func() { // ends with the program's output
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			_ = p.wire.send(opText, lines.Bytes())
		}
		pass <- lines.Err()
	}()
	relay := func() {
		if _, err := fmt.Fprintln(in, p.next().text); err != nil {
			t.Errorf("forward to the client: %v", err)
		}
	}
	receive := func(event, data string) {
		t.Helper()
		select {
		case m := <-messages:
			if m.Event != event || string(m.Data) != data {
				t.Errorf("got %s %s, want %s %s", m.Event, m.Data, event, data)
			}
		case <-ctx.Done():
			t.Fatalf("timeout waiting for %s", event)
		}
	}
	relay() // connected
	id := r.only(messages, ctx)
	for i, text := range []string{`"1"`, `{"ü":"世界 🦊"}`, `"` + repeat("long ", 10_000) + `"`} {
		must(t, r.Local().Send(t.Context(), hearth.ToClient(id), "ask", raw(text)))
		must(t, r.Local().Send(t.Context(), hearth.ToAll(), "noise", i))
		relay()
		relay()
		receive("answer", text)
	}
	must(t, errors.Join(in.Close(), <-pass, program.Wait()))
}

// only returns the id that the client sends in its hello.
func (r *rig) only(messages <-chan hearth.Message, ctx context.Context) string {
	r.t.Helper()
	select {
	case m := <-messages:
		users := r.Local().Clients(hearth.ToUser("browser"))
		if len(users) != 1 || m.Event != "hello" || string(m.Data) != `"`+users[0].ID()+`"` {
			r.t.Fatalf("got %s %s with %d clients, want the hello of one", m.Event, m.Data, len(users))
		}
		return users[0].ID()
	case <-ctx.Done():
		r.t.Fatal("timeout waiting for the hello")
	}
	return ""
}
