// Package fetch makes requests to other services on behalf of the server binary, with bounds: to a
// fixed URL, without redirects, with a timeout, and with a limit for the answer.
package fetch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// CheckURL checks the URL of a service. It must be https, unless plain allows http, or the host is
// this machine. The error ends with an example.
func CheckURL(s, example string, plain bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("takes a URL, as in %s", example)
	case u.User != nil:
		return fmt.Errorf("takes a URL without a user and a password, as in %s", example)
	case u.Scheme == "http" && !plain && !loopback(u.Hostname()):
		return fmt.Errorf("takes an https URL, as in %s: http is allowed only for this machine, as in http://localhost:8000/", example)
	}
	return nil
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// NewClient returns a client that follows no redirects: the server at the URL must not choose
// another one. The timeout is for a request and its answer.
func NewClient(transport http.RoundTripper, timeout time.Duration) *http.Client {
	return &http.Client{Transport: transport, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// ErrTooLarge is wrapped by the error of ReadBody for an answer beyond the limit.
var ErrTooLarge = errors.New("the answer is too large")

// ReadBody reads the body of an answer, up to a limit in bytes.
func ReadBody(resp *http.Response, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: limit %d KiB", ErrTooLarge, limit>>10)
	}
	return body, nil
}
