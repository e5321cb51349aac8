package jwtauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/hearthws/hearth/internal/app/fetch"
)

const (
	keySetTimeout  = 5 * time.Second  // for one request
	keySetInterval = 5 * time.Minute  // between two requests, if nothing else happens
	keySetThrottle = 10 * time.Second // between two requests because of an unknown key id
	keySetRetry    = time.Second      // after the first failure; doubles up to keySetInterval
	maxKeySet      = 256 << 10        // bytes of an answer
)

// A keySet holds the keys of a JSON Web Key Set. It loads them from a fixed URL at the start, at
// intervals, and when a token names a key that it does not know, but not too often. If the set
// cannot be loaded, the last one stays. It is the storage from which package keyfunc takes keys.
// Safe for concurrent use.
type keySet struct {
	*jwkset.MemoryJWKSet // the keys

	// Set by newKeySet, then read-only.
	url    string
	client *http.Client
	log    *slog.Logger
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	ended  sync.WaitGroup // the goroutines

	mu        sync.Mutex    // guards the fields below
	loading   chan struct{} // closed when the request in progress has ended; nil if there is none
	loaded    chan struct{} // closed when the set was loaded for the first time
	problem   error         // of the last request
	requested time.Time     // the beginning of the last request
	failures  int           // since the last success
	closed    bool
}

func newKeySet(cfg Config) *keySet {
	ctx, cancel := context.WithCancel(context.Background())
	return &keySet{
		MemoryJWKSet: jwkset.NewMemoryStorage(),
		url:          cfg.JWKS,
		client:       fetch.NewClient(cfg.Transport, keySetTimeout),
		log:          cfg.Logger, ctx: ctx, cancel: cancel, loaded: make(chan struct{}),
	}
}

// start loads the set now and at intervals, until close.
func (k *keySet) start() {
	loading := k.load(0)
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.ended.Add(1)
		// Ends with ctx. close waits for it.
		go k.refresh(loading)
	}
}

// close ends the goroutines and waits for them.
func (k *keySet) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.ended.Wait()
	k.client.CloseIdleConnections()
}

// refresh loads the set at intervals, after the request that loading is the end of.
func (k *keySet) refresh(loading <-chan struct{}) {
	defer k.ended.Done()
	for ; ; loading = k.load(0) {
		select {
		case <-loading:
		case <-k.ctx.Done():
			return
		}
		timer := time.NewTimer(k.wait())
		select {
		case <-timer.C:
		case <-k.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// wait returns the time until the next regular request.
func (k *keySet) wait() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failures == 0 {
		return keySetInterval
	}
	return min(keySetRetry<<min(k.failures-1, 10), keySetInterval)
}

// load begins a request, unless one is in progress, or the last one began less than pause ago. It
// returns a channel that is closed when the request has ended, or nil if there is none.
func (k *keySet) load(pause time.Duration) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.loading != nil:
		return k.loading
	case k.closed, pause > 0 && !k.requested.IsZero() && time.Since(k.requested) < pause:
		return nil
	}
	k.loading, k.requested = make(chan struct{}), time.Now()
	k.ended.Add(1)
	// Ends after keySetTimeout, or with ctx. close waits for it.
	go k.request()
	return k.loading
}

// request loads the set once.
func (k *keySet) request() {
	defer k.ended.Done()
	keys, err := k.fetch()
	if err == nil {
		err = k.KeyReplaceAll(k.ctx, keys)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.loading)
	k.loading, k.problem = nil, err
	switch {
	case err == nil:
		if !k.hasLoaded() || k.failures > 0 {
			k.log.Info("loaded the key set", "url", k.url, "keys", len(keys))
		}
		if k.failures = 0; !k.hasLoaded() {
			close(k.loaded)
		}
	case k.ctx.Err() != nil: // closed
	default:
		k.failures++
		message := "cannot load the key set: tokens cannot be verified until it is loaded"
		if k.hasLoaded() {
			message = "cannot load the key set, keeping the keys of the last one"
		}
		k.log.Error(message, "url", k.url, "error", err)
	}
}

// hasLoaded reports whether the set was loaded at least once.
func (k *keySet) hasLoaded() bool {
	select {
	case <-k.loaded:
		return true
	default:
		return false
	}
}

// ready waits until the set is loaded, or ctx is done.
func (k *keySet) ready(ctx context.Context) error {
	select {
	case <-k.loaded:
		return nil
	case <-ctx.Done():
		k.mu.Lock()
		defer k.mu.Unlock()
		return fmt.Errorf("load the key set from %s: %w", k.url, errors.Join(k.problem, ctx.Err()))
	}
}

// fetch returns the usable keys of the set. An answer without any is an error.
func (k *keySet) fetch() ([]jwkset.JWK, error) {
	req, err := http.NewRequestWithContext(k.ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("request the keys: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer has the status %d, not 200", resp.StatusCode)
	}
	body, err := fetch.ReadBody(resp, maxKeySet)
	if err != nil {
		return nil, err
	}
	return parseKeySet(body)
}

// parseKeySet returns the public keys that can verify signatures. It ignores the others: secrets,
// keys for encryption, keys of unknown types.
func parseKeySet(body []byte) ([]jwkset.JWK, error) {
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("the answer is not a key set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the set has %d keys, limit %d", len(set.Keys), maxKeys)
	}
	var keys []jwkset.JWK
	for _, m := range set.Keys {
		if m.KTY == jwkset.KtyOct || m.USE == jwkset.UseEnc {
			continue
		}
		// Without the private members, which a public set should not have.
		key, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		if _, err := algorithmsOf(key.Key()); err == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("none of the %d keys of the set can be used to verify tokens", len(set.Keys))
	}
	return keys, nil
}

// KeyRead returns the key with an id. If it is unknown, it waits for the set to be loaded again,
// unless that was done a moment ago.
func (k *keySet) KeyRead(ctx context.Context, id string) (jwkset.JWK, error) {
	key, err := k.MemoryJWKSet.KeyRead(ctx, id)
	if err == nil {
		return key, nil
	}
	if err := k.reload(ctx); err != nil {
		return jwkset.JWK{}, err
	}
	if key, err = k.MemoryJWKSet.KeyRead(ctx, id); err == nil {
		return key, nil
	}
	return jwkset.JWK{}, k.unknown()
}

// KeyReadAll returns all keys, for tokens that do not name one.
func (k *keySet) KeyReadAll(ctx context.Context) ([]jwkset.JWK, error) {
	if !k.hasLoaded() {
		if err := k.reload(ctx); err != nil {
			return nil, err
		}
	}
	keys, err := k.MemoryJWKSet.KeyReadAll(ctx)
	if err == nil && len(keys) == 0 {
		err = errUnavailable
	}
	return keys, err
}

// reload loads the set again, if keySetThrottle allows it, and waits for the request in progress.
func (k *keySet) reload(ctx context.Context) error {
	loading := k.load(keySetThrottle)
	if loading == nil {
		return nil
	}
	select {
	case <-loading:
		return nil
	case <-ctx.Done():
		return errors.Join(errUnavailable, ctx.Err())
	}
}

// unknown returns the error for a key that is not in the set. If the set is not up to date, the
// token may be valid.
func (k *keySet) unknown() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.hasLoaded() || k.failures > 0 {
		return errUnavailable
	}
	return errUnknownKey
}
