package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/bench/internal/process"
)

// centrifugoVersion is the version that is measured. It is built once, into the cache folder.
const centrifugoVersion = "v6.9.1"

// buildCentrifugo builds Centrifugo from the Go module proxy.
func buildCentrifugo(ctx context.Context, l *lab) error {
	dir, err := filepath.Abs(filepath.Join(l.cache, "centrifugo-"+centrifugoVersion))
	if err != nil {
		return err
	}
	l.centrifugo = filepath.Join(dir, "centrifugo")
	if _, err := os.Stat(l.centrifugo); err == nil {
		return nil
	}
	const module = "github.com/centrifugal/centrifugo/v6@" + centrifugoVersion
	if _, err := process.Output(ctx, os.TempDir(), "env", "GOBIN="+dir, "go", "install", module); err != nil {
		return fmt.Errorf("build Centrifugo: %w", err)
	}
	return nil
}

// startCentrifugo starts a server whose settings are the defaults, except that all clients may
// connect and subscribe, and that the rooms have history and recovery.
func startCentrifugo(ctx context.Context, l *lab, o nodeOptions) (*node, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	type object map[string]any
	config := object{
		"http_server": object{"address": "127.0.0.1", "port": port},
		"usage_stats": object{"disabled": true},
		"client":      object{"allowed_origins": []string{"*"}, "allow_anonymous_connect_without_token": true},
		"http_api":    object{"insecure": true},
		"channel": object{"namespaces": []object{{
			"name": "kept", "history_size": historySize, "history_ttl": "300s", "force_recovery": true,
			"allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
		}}},
	}
	if o.redis != "" {
		config["engine"] = object{"type": "redis", "redis": object{"address": o.redis}}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(l.dir, "centrifugo-"+port+".json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	p, err := process.Start(ctx, process.Command{Args: []string{l.centrifugo, "-c", file}, Ready: func(line string) (string, bool) {
		return addr, strings.Contains(line, "serving") && strings.Contains(line, port)
	}})
	if err != nil {
		return nil, err
	}
	l.stops = append(l.stops, p.Kill)
	return &node{process: p, addr: addr}, awaitListener(ctx, addr)
}

// awaitListener waits until a process listens on an address.
func awaitListener(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			return err
		}
	}
}

// A httpPublisher publishes by the HTTP API of Centrifugo.
type httpPublisher struct {
	url    string
	client *http.Client
}

func newHTTPPublisher(_ context.Context, _ *lab, n *node) (publisher, error) {
	return &httpPublisher{url: "http://" + n.addr + "/api/", client: &http.Client{Timeout: answerTimeout}}, nil
}

// A centrifugoPublish is the parameters of the method publish.
type centrifugoPublish struct {
	Channel string      `json:"channel"`
	Data    roomMessage `json:"data"`
}

func (p *httpPublisher) publish(ctx context.Context, room string, number int) error {
	return p.post(ctx, "publish", centrifugoPublish{room, roomMessage{room, number}})
}

// post calls a method of the API. An error in the answer is an error.
func (p *httpPublisher) post(ctx context.Context, method string, parameters any) error {
	text, err := json.Marshal(parameters)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+method, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || bytes.Contains(answer, []byte(`"error"`)) {
		return fmt.Errorf("%s: %s: %.200s", method, response.Status, answer)
	}
	return nil
}

func (p *httpPublisher) close() { p.client.CloseIdleConnections() }

// A centrifugoTalk is a conversation in the JSON protocol of Centrifugo.
type centrifugoTalk struct {
	*session
	asked []string // the rooms of the subscribe commands; the id of a command is its place and 2
	left  int      // subscribe commands without an answer
}

var centrifugoDialect = dialect{path: "/connection/websocket", speak: func(s *session) conversation { return &centrifugoTalk{session: s} }}

// A subscribeCommand subscribes to a channel, from a position with Recover.
type subscribeCommand struct {
	Channel string `json:"channel"`
	Recover bool   `json:"recover,omitempty"`
	Offset  uint64 `json:"offset,omitempty"`
	Epoch   string `json:"epoch,omitempty"`
}

// A centrifugoCommand is a message of a client; one of the pointers is set.
type centrifugoCommand struct {
	ID        int               `json:"id"`
	Connect   *struct{}         `json:"connect,omitempty"`
	Subscribe *subscribeCommand `json:"subscribe,omitempty"`
	Leave     *subscribeCommand `json:"unsubscribe,omitempty"`
}

// A publication is a message of a channel.
type publication struct {
	Data   roomMessage `json:"data"`
	Offset uint64      `json:"offset"`
}

// A subscribeReply is the answer to a subscribeCommand.
type subscribeReply struct {
	Epoch        string        `json:"epoch"`
	Offset       uint64        `json:"offset"`
	Publications []publication `json:"publications"`
	Recovered    bool          `json:"recovered"`
	Recovering   bool          `json:"was_recovering"`
}

// A centrifugoReply is a message of the server. An empty one is a ping.
type centrifugoReply struct {
	ID    int `json:"id"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Connect   *struct{}       `json:"connect"`
	Subscribe *subscribeReply `json:"subscribe"`
	Push      *struct {
		Channel     string       `json:"channel"`
		Pub         *publication `json:"pub"`
		Unsubscribe *struct{}    `json:"unsubscribe"`
	} `json:"push"`
}

func (t *centrifugoTalk) begin() error {
	return t.command(centrifugoCommand{ID: 1, Connect: &struct{}{}})
}

// heartbeat is not used: the server sends pings, and the client answers them.
func (t *centrifugoTalk) heartbeat() error { return errors.ErrUnsupported }

// command sends commands in one message.
func (t *centrifugoTalk) command(commands ...centrifugoCommand) error {
	lines := make([][]byte, len(commands))
	for i, c := range commands {
		text, err := json.Marshal(c)
		if err != nil {
			return err
		}
		lines[i] = text
	}
	return t.send(bytes.Join(lines, []byte("\n")))
}

func (t *centrifugoTalk) handle(payload []byte) error {
	payload = slices.Clone(payload) // an answer to one line uses the buffer of the socket
	for line := range bytes.Lines(payload) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var r centrifugoReply
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("read a message of the server: %w", err)
		}
		if err := t.reply(r); err != nil {
			return err
		}
	}
	return nil
}

func (t *centrifugoTalk) reply(r centrifugoReply) error {
	switch {
	case r.Error != nil:
		return fmt.Errorf("error of the server: %d %s", r.Error.Code, r.Error.Message)
	case r.Connect != nil:
		return t.subscribe(t.rooms...)
	case r.Subscribe != nil:
		return t.subscribed(r.ID-2, *r.Subscribe)
	case r.Push != nil && r.Push.Pub != nil:
		t.message(r.Push.Channel, r.Push.Pub.Data.Number, position{r.Push.Pub.Offset, t.positions[r.Push.Channel].Epoch})
	case r.Push != nil && r.Push.Unsubscribe != nil:
		t.interruptions.Add(1)
		return t.subscribe(r.Push.Channel)
	case r.ID == 0 && r.Push == nil:
		return t.send([]byte("{}"))
	}
	return nil
}

// subscribe subscribes to rooms, from their positions if it has any.
func (t *centrifugoTalk) subscribe(rooms ...string) error {
	var commands []centrifugoCommand
	for _, room := range rooms {
		at, known := t.positions[room]
		commands = append(commands, centrifugoCommand{ID: len(t.asked) + 2, Subscribe: &subscribeCommand{room, known, at.Offset, at.Epoch}})
		t.asked = append(t.asked, room)
		t.left++
	}
	return t.command(commands...)
}

// subscribed handles the answer to a subscribe command.
func (t *centrifugoTalk) subscribed(number int, r subscribeReply) error {
	if number < 0 || number >= len(t.asked) {
		return fmt.Errorf("an answer to command %d", number+2)
	}
	room := t.asked[number]
	t.left--
	before, known := t.positions[room]
	if r.Recovering && !r.Recovered {
		t.report(room)
		t.unrecovered("not recovered")
	}
	if !known || !r.Recovered {
		t.positions[room] = position{r.Offset, r.Epoch}
	} else if before.Epoch != r.Epoch {
		t.violation("%s: recovered in epoch %s from %s", room, r.Epoch, before.Epoch)
	}
	t.session.join(t.left == 0, pending{room, len(r.Publications)})
	for _, p := range r.Publications {
		t.message(room, p.Data.Number, position{p.Offset, r.Epoch})
	}
	return nil
}
