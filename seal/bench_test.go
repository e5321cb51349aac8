package seal_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"runtime"
	"strconv"
	"testing"

	"github.com/hearthws/hearth/seal"
)

var sizes = []int{100, 1000, 65536}

// BenchmarkAppendEnvelope, compared with BenchmarkBare, shows the cost of IV, base64 and JSON in
// addition to the encryption.
func BenchmarkAppendEnvelope(b *testing.B) {
	_, server := exchange(b)
	for _, n := range sizes {
		text, buf := make([]byte, n), make([]byte, 0, seal.EnvelopeSize(n))
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				if _, err := server.AppendEnvelope(buf, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBare measures AES-256-GCM alone; bare/iv also draws a fresh IV.
func BenchmarkBare(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range sizes {
		text, buf, iv := make([]byte, n), make([]byte, 0, n+16), make([]byte, 12)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				aead.Seal(buf, iv, text, nil)
			}
		})
		b.Run(strconv.Itoa(n)+"/iv", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				_, _ = rand.Read(iv) // never returns an error
				aead.Seal(buf, iv, text, nil)
			}
		})
	}
}

// BenchmarkOpenData opens data in the form of JSON.stringify, and the same with an added space.
func BenchmarkOpenData(b *testing.B) {
	client, server := exchange(b)
	for _, n := range sizes {
		object, err := server.AppendData(nil, make([]byte, n))
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 0, 2*n+100)
		for name, data := range map[string]json.RawMessage{"": object, "/any": append([]byte{' '}, object...)} {
			b.Run(strconv.Itoa(n)+name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(n))
				for b.Loop() {
					if _, err := client.OpenData(buf, data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkHandshake measures the server's work for one client.
func BenchmarkHandshake(b *testing.B) {
	client := generate(b).PublicKey().String()
	b.ReportAllocs()
	for b.Loop() {
		derive(b, generate(b), client, seal.NewSalt())
	}
}

// BenchmarkMemory reports the memory of one Cipher.
func BenchmarkMemory(b *testing.B) {
	const many = 10_000
	key, peer := generate(b), generate(b).PublicKey()
	for b.Loop() {
		kept := make([]*seal.Cipher, many)
		before := inUse()
		for i := range kept {
			c, err := key.Derive(peer, seal.Salt{})
			if err != nil {
				b.Fatal(err)
			}
			kept[i] = c
		}
		b.ReportMetric(float64(inUse()-before)/many, "B/cipher")
		runtime.KeepAlive(kept)
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
