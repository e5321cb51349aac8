package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/hearthws/hearth/seal"
)

// A transcript is all that some encrypted clients got, `connected` included, client by client in
// the order of arrival.
type transcript map[uint32][][]byte

var errTranscript = errors.New("transcript cut short")

// parseTranscript reads what the load generator wrote: pieces of messages, each with the client's
// number and its length, whose upper bit says that the message ends here.
func parseTranscript(data []byte) (transcript, error) {
	const header, last = 8, 1 << 31
	t := transcript{}
	partial := map[uint32][]byte{}
	for len(data) > 0 {
		if len(data) < header {
			return nil, errTranscript
		}
		client, length := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:])
		size := int(length &^ last)
		if len(data) < header+size {
			return nil, errTranscript
		}
		partial[client] = append(partial[client], data[header:header+size]...)
		data = data[header+size:]
		if length&last != 0 {
			t[client] = append(t[client], partial[client])
			delete(partial, client)
		}
	}
	if len(partial) > 0 {
		return nil, fmt.Errorf("%w: %d messages did not end", errTranscript, len(partial))
	}
	return t, nil
}

// open decrypts everything with the clients' key. Each of so many clients must have got `connected`
// in clear, then the messages numbered from first on, count of them, each once, and nothing else.
// It returns how many it opened, and how many of them came before one that was sent earlier.
func (t transcript) open(key *seal.PrivateKey, clients, first, count int) (opened, reordered int64, err error) {
	if len(t) != clients {
		return 0, 0, fmt.Errorf("%d clients in the transcript, want %d", len(t), clients)
	}
	for client, messages := range t {
		late, err := openClient(messages, key, first, count)
		if err != nil {
			return 0, 0, fmt.Errorf("client %d: %w", client, err)
		}
		opened += int64(count)
		reordered += late
	}
	return opened, reordered, nil
}

func openClient(messages [][]byte, key *seal.PrivateKey, first, count int) (reordered int64, err error) {
	if len(messages) != count+1 {
		return 0, fmt.Errorf("%d messages, want `connected` and %d", len(messages), count)
	}
	cipher, err := greet(messages[0], key)
	if err != nil {
		return 0, fmt.Errorf("connected: %w", err)
	}
	seen := make([]bool, count)
	next := 0
	for i, message := range messages[1:] {
		number, err := openMessage(cipher, message)
		if err != nil {
			return 0, fmt.Errorf("message %d: %w", i, err)
		}
		at := number - first
		if at < 0 || at >= count || seen[at] {
			return 0, fmt.Errorf("message %d: number %d is not one of %d from %d on, or was there before", i, number, count, first)
		}
		seen[at] = true
		if at > next { // something that was sent earlier is still to come
			reordered++
		}
		for next < count && seen[next] {
			next++
		}
	}
	return reordered, nil
}

// greet derives the client's cipher from its `connected`.
func greet(message []byte, key *seal.PrivateKey) (*seal.Cipher, error) {
	var connected struct {
		Event string `json:"event"`
		Data  struct {
			ServerPublicKey string `json:"serverPublicKey"`
			Salt            string `json:"salt"`
		} `json:"data"`
	}
	if err := json.Unmarshal(message, &connected); err != nil {
		return nil, err
	}
	if connected.Event != "connected" {
		return nil, fmt.Errorf("the event is %q", connected.Event)
	}
	peer, err := seal.ParsePublicKey(connected.Data.ServerPublicKey)
	if err != nil {
		return nil, err
	}
	salt, err := seal.ParseSalt(connected.Data.Salt)
	if err != nil {
		return nil, err
	}
	return key.Derive(peer, salt)
}

// openMessage decrypts a numbered message and returns its number.
func openMessage(cipher *seal.Cipher, message []byte) (int, error) {
	var outer struct {
		Event string          `json:"event"`
		Data  json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(message, &outer); err != nil {
		return 0, err
	}
	if outer.Event != "encrypted" {
		return 0, fmt.Errorf("in clear: the event is %q", outer.Event)
	}
	plain, err := cipher.OpenData(nil, outer.Data)
	if err != nil {
		return 0, err
	}
	digits, ok := bytes.CutPrefix(plain, []byte(`{"event":"m","data":{"p":"`))
	digits, closed := bytes.CutSuffix(digits, []byte(`"}}`))
	if !ok || !closed || len(digits) != messageSize {
		return 0, fmt.Errorf("it says %.200q", plain)
	}
	return strconv.Atoi(string(digits))
}
