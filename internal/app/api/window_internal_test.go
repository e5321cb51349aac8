package api

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWindow()
		a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
		expect := func(key string, print [32]byte, repeated bool, want error) {
			t.Helper()
			if got, err := w.begin(key, print); got != repeated || !errors.Is(err, want) {
				t.Errorf("begin %s: %v, %v", key, got, err)
			}
		}
		expect("k", a, false, nil)
		expect("k", a, false, errInProgress)
		expect("k", b, false, errKeyReused)
		w.end("k", false)
		expect("k", b, false, nil) // the first one has failed
		w.end("k", true)
		expect("k", b, true, nil)
		time.Sleep(2*time.Minute - time.Second)
		expect("k", b, true, nil)
		time.Sleep(2 * time.Second)
		expect("k", a, false, nil) // forgotten
	})
}

// TestWindowIsBounded fills a window with keys in progress, and with keys of sent messages.
func TestWindowIsBounded(t *testing.T) {
	t.Parallel()
	w := newWindow()
	print := sha256.Sum256(nil)
	for i := range maxKeys {
		if _, err := w.begin(fmt.Sprint(i), print); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.begin("more", print); !errors.Is(err, errNoMemory) {
		t.Errorf("one more: %v", err)
	}
	w.end("5", true)
	if repeated, err := w.begin("more", print); repeated || err != nil {
		t.Errorf("after one was sent: %v", err)
	}
	if repeated, err := w.begin("5", print); repeated || !errors.Is(err, errNoMemory) {
		t.Errorf("the oldest that was sent: %v, %v", repeated, err)
	}
	if len(w.byKey) != maxKeys || w.oldest.Len() != maxKeys {
		t.Errorf("%d and %d keys", len(w.byKey), w.oldest.Len())
	}
}
