//go:build linux

package app_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth/internal/test/child"
	"github.com/hearthws/hearth/internal/test/port"
)

// A proxy is one of the proxies in deploy/. The test changes addresses and certificates in its
// configuration, and nothing else.
type proxy struct {
	program string
	file    string
	// changes returns what to replace in the file, in pairs. own has the port of the proxy, server
	// the address of the server.
	changes func(own, server, cert, key, both string) []string
	around  string                            // the whole configuration; %s is the file
	command func(dir, config string) []string // the arguments
}

func proxies() []proxy {
	return []proxy{
		{
			program: "nginx", file: "nginx/hearth.conf",
			changes: func(own, server, cert, key, _ string) []string {
				return []string{"listen 443", "listen " + own, "127.0.0.1:8080", server, "/etc/ssl/live.example.com.pem", cert, "/etc/ssl/live.example.com.key", key}
			},
			around: "daemon off; master_process off; pid nginx.pid; error_log stderr; events { worker_connections 64; }\nhttp {\naccess_log off; " +
				"client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n%s}\n",
			command: func(dir, config string) []string { return []string{"-p", dir, "-c", config, "-e", "stderr"} },
		},
		{
			program: "haproxy", file: "haproxy/hearth.cfg",
			changes: func(own, server, _, _, both string) []string {
				return []string{"bind :443", "bind 127.0.0.1:" + own, "127.0.0.1:8080", server, "/etc/ssl/live.example.com.combined.pem", both, "maxconn 100000", "maxconn 64"}
			},
			around:  "%s",
			command: func(_, config string) []string { return []string{"-db", "-f", config} },
		},
		{
			program: "caddy", file: "caddy/Caddyfile",
			changes: func(own, server, cert, key, _ string) []string {
				return []string{"live.example.com {", "https://localhost:" + own + " {\n\ttls " + cert + " " + key, "127.0.0.1:8080", server}
			},
			around:  "{\n\tadmin off\n\tauto_https off\n}\n%s",
			command: func(_, config string) []string { return []string{"run", "--adapter", "caddyfile", "--config", config} },
		},
	}
}

// TestProxies connects a client through each proxy, and checks what the server and the client see.
func TestProxies(t *testing.T) {
	t.Parallel()
	for _, p := range proxies() {
		t.Run(p.program, func(t *testing.T) {
			t.Parallel()
			path, err := exec.LookPath(p.program)
			if err != nil {
				t.Skipf("needs %s (Debian: %s)", p.program, p.program)
			}
			log := &logs{}
			s := serveLogging(t, map[string]string{"trusted-proxies": "127.0.0.1", "admin": "localhost:0", "listen": "127.0.0.1:0"}, log)
			fetch(t, s.url+"readyz") // until it serves
			url, client := p.start(t, path, strings.Trim(strings.TrimPrefix(s.url, "http://"), "/"))
			ada := dialWith(t, strings.Replace(url, "https", "wss", 1)+"/ws", "ada", &websocket.DialOptions{
				HTTPClient: client, HTTPHeader: http.Header{"X-Forwarded-For": {"192.0.2.6"}},
			})
			if n := log.count("address=127.0.0.2"); n != 1 || log.count("192.0.2.6") > 0 {
				t.Errorf("the address of the client is logged %d times", n)
			}
			ada.send(`{"event":"heartbeat","id":1}`)
			ada.send(`{"event":"who","data":{"room":"ws-default"}}`)
			ada.until("who", nil)
			for _, private := range []string{"/metrics", "/healthz", "/", "/ws/x"} {
				resp, err := get(client, url+private)
				if err != nil || resp != http.StatusNotFound {
					t.Errorf("%s: %d %v", private, resp, err)
				}
			}
		})
	}
}

func get(client *http.Client, url string) (status int, err error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// start starts the proxy before a server. The client trusts its certificate, and connects from
// 127.0.0.2.
func (p proxy) start(t *testing.T, path, server string) (url string, client *http.Client) {
	t.Helper()
	dir := t.TempDir()
	cert, key, pool := certificate(t)
	both := filepath.Join(dir, "both.pem")
	var pem []byte
	for _, name := range []string{cert, key} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pem = append(pem, b...)
	}
	b, err := os.ReadFile(deploy + p.file)
	if err != nil {
		t.Fatal(err)
	}
	_, own, err := net.SplitHostPort(port.Free(t))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	changes := p.changes(own, server, cert, key, both)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("%s has no %q", p.file, changes[i])
		}
		text = strings.ReplaceAll(text, changes[i], changes[i+1])
	}
	config := filepath.Join(dir, "proxy.conf")
	for name, content := range map[string][]byte{both: pem, config: fmt.Appendf(nil, p.around, text)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.run(t, path, dir, config)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp4", "127.0.0.1:"+own)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client, url = &http.Client{Transport: transport}, "https://localhost:"+own
	eventually(t, p.program+" serves", func() bool {
		_, err := get(client, url+"/nothing")
		return err == nil
	})
	return url, client
}

// run runs the proxy until the end of the test.
func (p proxy) run(t *testing.T, path, dir, config string) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), path, p.command(dir, config)...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	process, err := child.Start(cmd, func() { // ends at the end of the output; Wait waits for it
		for s := bufio.NewScanner(out); s.Scan(); {
			lines = append(lines, s.Text())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		_ = process.Wait() // the exit code of a signal
		if t.Failed() {
			t.Logf("%s:\n%s", p.program, strings.Join(lines, "\n"))
		}
	})
}
