package protocol_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hearthws/hearth/protocol"
)

func BenchmarkAppendEvent(b *testing.B) {
	data := json.RawMessage(`{"text":"hello, everyone in this room"}`)
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		dst = protocol.AppendEvent(dst[:0], "say", data)
	}
}

func BenchmarkAppendConnected(b *testing.B) {
	at := time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		dst = protocol.AppendConnected(dst[:0], "2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c11", "ada", at)
	}
}

func BenchmarkEncodeData(b *testing.B) {
	for name, v := range map[string]any{
		"raw":    json.RawMessage(`{"text":"hello, everyone in this room"}`),
		"struct": struct{ Text string }{"hello, everyone in this room"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := protocol.EncodeData(v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMessage(b *testing.B) {
	m := protocol.Message{
		ServerID: "0b6c4bb0-31f5-4c52-8f4e-6a3f2c1d9e77", Type: protocol.TypeRoom, Target: "lobby", Event: "say",
		Data: json.RawMessage(`{"text":"hello, everyone in this room, and to those who come later"}`),
	}
	text := protocol.AppendMessage(nil, m)
	b.Run("append", func(b *testing.B) {
		dst := make([]byte, 0, 1024)
		b.ReportAllocs()
		for b.Loop() {
			dst = protocol.AppendMessage(dst[:0], m)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := protocol.ParseMessage(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParseRooms(b *testing.B) {
	data := json.RawMessage(`{"rooms":["lobby","chess:42","news"]}`)
	b.ReportAllocs()
	for b.Loop() {
		if len(protocol.ParseRooms(data)) != 3 {
			b.Fatal("rooms lost")
		}
	}
}
