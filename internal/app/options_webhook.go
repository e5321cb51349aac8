package app

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/internal/app/fetch"
	"github.com/hearthws/hearth/internal/app/webhook"
)

// groupWebhook is the heading of the options for the webhook.
const groupWebhook = "Webhook (auth webhook)"

// Webhook is the configuration of the webhook that authenticates clients. Each field has an option.
type Webhook struct {
	URL            string
	AllowHTTP      bool
	Secret         string `json:"-"`
	PreviousSecret string `json:"-"`
	Headers        []string
	Timeout        time.Duration
}

const webhookExample = "https://app.example/hearth"

func webhookOptions() []Option {
	secretOf := func(name, usage string, field func(*Config) *string) Option {
		o := text(name, groupWebhook, "base64", "", usage, field, parseWebhookSecret)
		o.Secret = true
		return o
	}
	timeout := duration("webhook-timeout", "5s", "how long to wait for an answer of the webhook",
		func(c *Config) *time.Duration { return &c.Webhook.Timeout }, false)
	timeout.Group = groupWebhook
	return []Option{
		text("webhook-url", groupWebhook, "url", "", "URL to which the server sends the credentials of a client; https, except on this machine",
			func(c *Config) *string { return &c.Webhook.URL }, anyText),
		boolean("webhook-allow-http", groupWebhook, "allow http in webhook-url for other machines: credentials can be read on the network",
			func(c *Config) *bool { return &c.Webhook.AllowHTTP }),
		secretOf("webhook-secret", "secret by which the webhook checks that a request is from this server: 24 to 64 random bytes in base64",
			func(c *Config) *string { return &c.Webhook.Secret }),
		secretOf("webhook-previous-secret", "another secret with which requests are signed, while webhook-secret is replaced",
			func(c *Config) *string { return &c.Webhook.PreviousSecret }),
		list("webhook-headers", groupWebhook, "name", "", "headers of the opening handshake that the webhook gets, as in cookie (default: none)",
			func(c *Config, v []string) { c.Webhook.Headers = v }, parseHeaders),
		timeout,
	}
}

func parseWebhookSecret(s string) (string, error) {
	if s == "" {
		return s, nil
	}
	_, err := webhook.ParseSecret(s)
	return s, err
}

func parseHeaders(values []string) ([]string, error) {
	for _, name := range values {
		if err := webhook.CheckHeader(name); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// webhookConfig translates the options to the configuration of package webhook.
func webhookConfig(w Webhook) (webhook.Config, error) {
	wc := webhook.Config{URL: w.URL, Timeout: w.Timeout}
	for _, s := range []string{w.Secret, w.PreviousSecret} {
		if s == "" {
			continue
		}
		key, err := webhook.ParseSecret(s)
		if err != nil {
			return wc, err
		}
		wc.Secrets = append(wc.Secrets, key)
	}
	return wc, nil
}

// checkWebhook reports combinations of the options for the webhook that cannot work.
func checkWebhook(c Config, wrong func(option, format string, args ...any)) {
	w := c.Webhook
	if c.Auth != AuthWebhook {
		if w.URL != "" {
			wrong("webhook-url", "has no effect with auth %q: set --auth webhook, or remove this option", c.Auth)
		}
		return
	}
	if w.URL == "" {
		wrong("auth", "the webhook needs a URL: set webhook-url, as in --webhook-url %s", webhookExample)
		return
	}
	if err := fetch.CheckURL(w.URL, webhookExample, w.AllowHTTP); err != nil {
		hint := ""
		if strings.HasPrefix(w.URL, "http:") {
			hint = "; or set webhook-allow-http"
		}
		wrong("webhook-url", "%w%s", err, hint)
	}
	if w.Secret == "" {
		wrong("auth", "the webhook needs a secret: set webhook-secret or webhook-secret-file, as printed by openssl rand -base64 32")
	}
	if most := 3 * c.AuthTimeout; w.Timeout > most {
		wrong("webhook-timeout", "is longer than a client may take to authenticate (%v, three times auth-timeout): use a shorter time", most)
	}
	if slices.Contains(c.Origins, "*") && slices.ContainsFunc(w.Headers, func(h string) bool { return strings.EqualFold(h, "cookie") }) {
		wrong("origins", "with webhook-headers cookie, any web page could connect as the user of the browser: list the origins of your pages")
	}
}

// forwarded returns those headers of an opening handshake that the webhook gets. It copies them,
// because the request must not be kept.
func forwarded(r *http.Request, names []string) http.Header {
	header := http.Header{}
	for _, name := range names {
		for _, value := range r.Header.Values(name) {
			header.Add(name, strings.Clone(value))
		}
	}
	return header
}
