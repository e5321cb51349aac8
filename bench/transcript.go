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

// A transcript has all messages that some encrypted clients received, including `connected`, by
// client in the order of arrival.
type transcript map[uint32][][]byte

var errTranscript = errors.New("transcript cut short")

// parseTranscript parses the file of the load generator: parts of messages, each with the client's
// number and its length, whose upper bit marks the last part of a message.
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

// open decrypts all messages with the clients' key. Each client must have received `connected`
// unencrypted, and then count messages, numbered from first on, each once. It returns the number of
// opened messages, and of those that arrived before one that was sent earlier.
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
			return 0, fmt.Errorf("message %d: number %d is not one of %d from %d on, or is a duplicate", i, number, count, first)
		}
		seen[at] = true
		if at > next { // an earlier message has not arrived yet
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
		return 0, fmt.Errorf("unencrypted: the event is %q", outer.Event)
	}
	plain, err := cipher.OpenData(nil, outer.Data)
	if err != nil {
		return 0, err
	}
	digits, ok := bytes.CutPrefix(plain, []byte(`{"event":"m","data":{"p":"`))
	digits, closed := bytes.CutSuffix(digits, []byte(`"}}`))
	if !ok || !closed || len(digits) != messageSize {
		return 0, fmt.Errorf("the content is %.200q", plain)
	}
	return strconv.Atoi(string(digits))
}
