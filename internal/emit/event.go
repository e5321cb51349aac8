// Package emit implements the command hearth emit: it reads one event or a stream of events and
// sends them with an emitter.
package emit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hearthws/hearth/emitter"
	"github.com/hearthws/hearth/protocol"
)

// The kinds of targets, in commands and lines.
const (
	ToRoom   = "room"
	ToUser   = "user"
	ToClient = "client"
	ToAll    = "all"
)

// An Event is one event for one target.
type Event struct {
	To      string // one of ToRoom, ToUser, ToClient, ToAll
	Target  string // the room, or an id; empty for ToAll
	Event   string
	Data    json.RawMessage // sent unchanged; nil: an event without data
	Exclude []string        // ids of clients, for ToRoom and ToAll only
	Key     string          // for ToRoom only: see emitter.Emitter.SendOnce; empty: none
}

// Check reports what is wrong with ev, and the fix.
func (ev Event) Check() error {
	switch ev.To {
	case ToAll:
	case ToRoom:
		if err := protocol.CheckRoom(ev.Target); err != nil {
			return fmt.Errorf("no client can be in room %.40q: %w", ev.Target, err)
		}
	case ToUser, ToClient:
		if ev.Target == "" {
			return fmt.Errorf("the id of the %s is empty", ev.To)
		}
		if len(ev.Exclude) > 0 {
			return fmt.Errorf("clients can be excluded from a room or from all, not from a %s", ev.To)
		}
		if ev.To == ToClient && !protocol.IsID(ev.Target) { // no client would get it
			return fmt.Errorf("no client has the id %.40q: the id of a client looks like 2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c11", ev.Target)
		}
	default:
		return fmt.Errorf("unknown target %q: give room, user, client or all", ev.To)
	}
	switch {
	case ev.Key != "" && ev.To != ToRoom:
		return fmt.Errorf("a key is for rooms with history, not for a %s", ev.To)
	case len(ev.Key) > protocol.MaxKey:
		return fmt.Errorf("the key is too long: at most %d bytes", protocol.MaxKey)
	case ev.Event == "":
		return errors.New("the event's name is empty")
	case !utf8.ValidString(ev.Event) || !utf8.ValidString(ev.Target):
		return errors.New("a name is not valid UTF-8")
	case len(ev.Exclude) > protocol.MaxExclude:
		return fmt.Errorf("too many excluded clients: at most %d", protocol.MaxExclude)
	}
	return checkData(ev.Data)
}

func checkData(data json.RawMessage) error {
	if data == nil {
		return nil
	}
	_, err := protocol.EncodeData(data)
	switch {
	case len(data) == 0:
		return errors.New("the data is empty: omit it for an event without data, or send null or {}")
	case err != nil && bytes.HasPrefix(data, []byte("\ufeff")):
		return errors.New("data starts with a byte order mark: save the file without it")
	case err != nil:
		return fmt.Errorf("data is not JSON: %s", quotingHint(data))
	}
	return nil
}

// quotingHint returns the invalid data and a hint. If the data looks like a plain text, the hint is
// the text as JSON, quoted for a shell.
func quotingHint(data []byte) string {
	const most = 40
	text := string(data)
	if word := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(`'"{}[]\`, r) }); word < 0 && len(text) <= most {
		return fmt.Sprintf(`%s; a text needs JSON quotes: '"%s"'`, text, text)
	}
	return fmt.Sprintf("%.*q; quote the whole JSON for the shell: '{\"n\":1}'", most, text)
}

// add adds ev to a batch. The caller has checked ev.
func (ev Event) add(b *emitter.Batch) {
	var data any = ev.Data
	if ev.Data == nil {
		data = emitter.NoData{}
	}
	if ev.Key != "" {
		b.AddOnce(ev.target(), ev.Event, data, ev.Key)
		return
	}
	b.Add(ev.target(), ev.Event, data)
}

func (ev Event) target() emitter.Target {
	switch ev.To {
	case ToRoom:
		return emitter.ToRoom(ev.Target).Except(ev.Exclude...)
	case ToUser:
		return emitter.ToUser(ev.Target)
	case ToClient:
		return emitter.ToClient(ev.Target)
	}
	return emitter.ToAll().Except(ev.Exclude...)
}

// ParseLine reads an event from a line of JSON and checks it:
//
//	{"room":"lobby","event":"news","data":{"n":1},"exclude":["…"]}
//
// An event for a room with history may have a "key". Instead of room there may be user, client, or all with the value true. The members may have any
// order. An unknown or repeated member is an error. Data is sent unchanged.
func ParseLine(line []byte) (Event, error) {
	var ev Event
	if !utf8.Valid(line) {
		return ev, errors.New("is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return ev, fmt.Errorf("is not a JSON object: %.40q", line)
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		if err != nil || !ok {
			return ev, notJSON(err)
		}
		if seen[name] {
			return ev, fmt.Errorf("has %q twice", name)
		}
		seen[name] = true
		if err := ev.member(d, name); err != nil {
			return ev, err
		}
	}
	if _, err := d.Token(); err != nil {
		return ev, notJSON(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return ev, errors.New("has more text after its object: write one event per line")
	}
	if ev.To == "" {
		return ev, errors.New(`has no target: give "room", "user", "client" or "all"`)
	}
	return ev, ev.Check()
}

// member parses the value of a member.
func (ev *Event) member(d *json.Decoder, name string) error {
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return notJSON(err)
	}
	switch name {
	case ToRoom, ToUser, ToClient:
		return ev.readTarget(name, raw, &ev.Target)
	case ToAll:
		var all bool
		if err := ev.readTarget(name, raw, &all); err != nil || !all {
			return errors.New(`"all" must be true or omitted`)
		}
		return nil
	case "event":
		return value(name, raw, &ev.Event)
	case "data":
		ev.Data = raw
		return nil
	case "exclude":
		return value(name, raw, &ev.Exclude)
	case "key":
		if err := value(name, raw, &ev.Key); err != nil {
			return err
		}
		if ev.Key == "" {
			return errors.New("the key is empty: omit it for an event without a key")
		}
		return nil
	}
	return fmt.Errorf(`has an unknown member %q: valid members are "room", "user", "client", "all", "event", "data", "exclude" and "key"`, name)
}

// readTarget parses the target of the event into to.
func (ev *Event) readTarget(name string, raw json.RawMessage, to any) error {
	if ev.To != "" {
		return fmt.Errorf("has both a %s and a %s: give one target per line", ev.To, name)
	}
	ev.To = name
	return value(name, raw, to)
}

// value parses a value, which must have the type of to and not be null.
func value(name string, raw json.RawMessage, to any) error {
	ok := string(raw) != "null"
	if text, isString := to.(*string); isString {
		*text, ok = protocol.ParseString(raw)
	} else {
		ok = ok && json.Unmarshal(raw, to) == nil
	}
	if !ok {
		want := map[string]string{ToAll: "true", "exclude": "a list of client ids"}[name]
		if want == "" {
			want = "a string"
		}
		return fmt.Errorf("%q takes %s, got %.40s", name, want, raw)
	}
	return nil
}

func notJSON(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("is cut off: write one complete JSON object per line")
	}
	return fmt.Errorf("is not JSON: %w", err)
}
