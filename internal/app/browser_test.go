package app_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/hearthws/hearth/internal/test/child"
	"github.com/hearthws/hearth/internal/test/port"
)

// chromium returns the path of the browser. Without one it skips the test with a message; with
// HEARTH_REQUIRE_BROWSER=1, as in CI, it fails.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const missing = "NO CHROMIUM FOUND: THE PAGE IS NOT TESTED (install chromium)"
	if os.Getenv("HEARTH_REQUIRE_BROWSER") == "1" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// browser starts a Chromium with an empty profile.
func browser(t *testing.T) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox)
	}
	alloc, freeAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, free := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("end the browser: %v", err)
		}
		free()
		freeAlloc()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// A tab is an open page with its requests and its console output.
type tab struct {
	t   *testing.T // the test, or subtest, that uses the tab now
	ctx context.Context

	mu       sync.Mutex // guards the fields below
	requests []string   // every URL
}

// open opens a page in a tab. At the end of the test it checks that the tab sent requests only to
// the server, and that its console is empty except for lines that contain a tolerated text.
func open(t *testing.T, browser context.Context, address string, tolerated ...string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	b := &tab{t: t, ctx: ctx}
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, network.Enable, network.EnableParams{})
		return err
	}))
	if err := chromedp.Listen(ctx, b.event); err != nil {
		t.Fatal(err)
	}
	console := chromedp.Console(ctx)
	complaints := make(chan []string, 1)
	// Ends when the tab's context does; the cleanup below waits for it.
	go func() {
		var said []string
		for m, err := range console {
			if err != nil {
				break
			}
			said = append(said, fmt.Sprint(m.Type, ": ", m.Text))
		}
		complaints <- said
	}()
	t.Cleanup(func() {
		cancel()
		for _, c := range <-complaints {
			if !slices.ContainsFunc(tolerated, func(s string) bool { return strings.Contains(c, s) }) {
				t.Errorf("the console has %s", c)
			}
		}
		b.checkRequests(t, address)
	})
	b.do(chromedp.Navigate(address))
	return b
}

func (b *tab) event(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *network.EventWebSocketCreated:
		b.requests = append(b.requests, e.URL)
	}
}

// checkRequests reports requests to other servers.
func (b *tab) checkRequests(t *testing.T, address string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	home, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	sockets := 0
	for _, r := range b.requests {
		u, err := url.Parse(r)
		if err != nil || u.Host != home.Host {
			t.Errorf("the page sent a request to %s", r)
		}
		if strings.HasPrefix(r, "ws:") {
			sockets++
		}
	}
	if len(b.requests) < 5 || sockets == 0 {
		t.Errorf("the requests were not recorded: %v", b.requests)
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// act runs a step that waits for an element, for at most limit.
func (b *tab) act(what string, step chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	if err := chromedp.Do(ctx, step); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// until waits for a JavaScript expression to become true.
func (b *tab) until(expression string) {
	b.t.Helper()
	poll := chromedp.Poll[bool](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(limit))
	if _, err := chromedp.Run(b.ctx, poll); err != nil {
		b.t.Fatalf("waiting for %s: %v\nthe page shows: %s", expression, err, b.text("body"))
	}
}

// text returns the text that an element shows.
func (b *tab) text(selector string) string {
	b.t.Helper()
	s, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%q)?.innerText ?? "(not there)"`, selector)))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// shows waits until an element shows text.
func (b *tab) shows(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.innerText.includes(%q))`, selector, text))
}

func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.act("type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text+"\r"))
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.act("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// say sends text from the message box.
func (b *tab) say(text string) {
	b.t.Helper()
	b.until(`!document.querySelector("#send").disabled`)
	b.fill("#text", text)
}

func TestBrowser(t *testing.T) {
	t.Parallel()
	chrome := browser(t)
	s := serve(t, nil)

	ada := open(t, chrome, s.url)
	ada.shows("#login-title", "Your server is running")
	ada.fill("#name", "ada")
	ada.shows("#status", "Connected as ada")
	grace, linus := open(t, chrome, s.url+"?as=grace"), open(t, chrome, s.url+"?as=linus")
	for _, b := range []*tab{ada, grace, linus} {
		b.shows("#members", "3 clients")
	}

	// Each stage builds on the one before.
	stage := func(name string, run func(t *testing.T)) {
		ok := t.Run(name, func(t *testing.T) {
			for _, b := range []*tab{ada, grace, linus} {
				b.t = t
			}
			run(t)
		})
		if !ok {
			t.FailNow()
		}
	}
	stage("room", func(t *testing.T) {
		ada.say("hello, lobby")
		grace.shows("#log", "hello, lobby")
		linus.shows("#log", "hello, lobby")
		ada.shows(".got", "3 of 3 clients received it")
		for _, name := range []string{"ada (this tab)", "grace", "linus"} {
			ada.shows(".got .chip", name)
		}
	})
	stage("markup is text", func(t *testing.T) {
		const text = `<img src=x onerror="document.title='broken into'">`
		grace.say(text)
		ada.shows("#log", text)
		ada.until(`document.querySelectorAll("#log img").length === 0`)
	})
	stage("whisper", func(t *testing.T) {
		ada.click(`[data-key="user:grace"] button`)
		ada.shows("#members", "only grace gets it")
		ada.say("for grace alone")
		ada.shows(".got", "1 of 1 client received it")
		grace.shows(`[data-key="user:ada"] .badge`, "1")
		grace.click(`[data-key="user:ada"] button`)
		grace.shows("#log", "for grace alone")
	})
	stage("shout", func(t *testing.T) {
		grace.click(`[data-key="everyone"] button`)
		grace.say("the fire is lit")
		grace.shows(".got", "3 of 3 clients received it")
		for _, b := range []*tab{ada, linus} {
			b.shows(`[data-key="everyone"] .badge`, "1")
			b.click(`[data-key="everyone"] button`)
			b.shows("#log", "the fire is lit")
		}
	})
	stage("wire", func(t *testing.T) {
		ada.shows(`#frames li.out[data-event="say"]`, `{"event":"say","data":{"text":"hello, lobby","room":"lobby","id":`)
		ada.shows(`#frames li.in[data-event="seen"]`, "grace")
		ada.shows("#frames .note", "open ws://")
		if s := linus.text("#frames"); strings.Contains(s, "for grace alone") {
			t.Error("linus received a private message for grace")
		}
		ada.fill("#raw-text", "not an envelope")
		ada.shows(`#frames li.out`, "not an envelope")
		ada.shows(`#frames li.in[data-event="error"]`, `{"event":"error","data":{"message":"Invalid message format"}}`)
		ada.shows("#notice", "Invalid message format")
	})
	stage("narrow", func(t *testing.T) {
		linus.do(chromedp.EmulateViewport(375, 600))
		linus.shows("#wire-count", "frames")
		for range 8 {
			ada.say("more than a phone shows")
		}
		linus.shows("#log", "more than a phone shows")
		linus.click(`.views [data-view="wire"]`)
		const overflows, atEnd = `document.querySelector("#frames").scrollHeight > document.querySelector("#frames").clientHeight`,
			`(e => e.scrollHeight - e.scrollTop - e.clientHeight < 2)(document.querySelector("#frames"))`
		linus.until(overflows)
		linus.until(atEnd)
		linus.do(chromedp.EmulateViewport(1280, 800))
	})
	stage("leave and join", func(t *testing.T) {
		linus.fill("#room", "kitchen")
		linus.shows("#members", "1 client: you")
		ada.shows(`[data-key="room:kitchen"]`, "join")
		linus.click(`[data-key="room:lobby"] button`)
		linus.click("#leave")
		ada.click(`[data-key="room:lobby"] button`)
		ada.shows("#members", "2 clients")
	})
	stage("theme", func(t *testing.T) {
		ada.until(`matchMedia("(prefers-color-scheme: dark)").matches || getComputedStyle(document.body).backgroundColor === "rgb(246, 242, 238)"`)
		ada.click("#theme")
		ada.click("#theme")
		ada.until(`getComputedStyle(document.body).backgroundColor === "rgb(19, 16, 14)"`)
	})
	stage("names for all controls", func(t *testing.T) {
		ada.until(`[...document.querySelectorAll("input")].every(e => e.labels.length > 0)`)
		ada.until(`[...document.querySelectorAll("button, a")].every(e => e.ariaLabel || e.textContent.trim())`)
	})
	stage("reload", func(t *testing.T) {
		linus.do(chromedp.Reload())
		linus.shows("#status", "Connected as linus")
		linus.shows(`[data-key="room:kitchen"]`, "kitchen")
	})
}

// TestBrowserReconnects checks that a page reports why the server closed the connection, and
// reconnects with the same name and rooms.
func TestBrowserReconnects(t *testing.T) {
	t.Parallel()
	chrome := browser(t)
	listen := port.Free(t)
	first := serve(t, map[string]string{"listen": listen})
	b := open(t, chrome, first.url+"?as=ada", "net::ERR_CONNECTION_REFUSED")
	b.fill("#room", "kitchen")
	b.shows("#members", "1 client: you")

	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	b.shows("#status", "1012 Service restart")
	b.shows("#status", "Reconnecting in")
	b.shows("#frames .note", "close 1012 Service restart")
	b.until(`["#send", "#join button", "#raw button"].every(s => document.querySelector(s).disabled)`)

	serve(t, map[string]string{"listen": listen})
	b.shows("#status", "Connected as ada")
	b.say("still here")
	b.shows(".got", "1 of 1 client received it")
	b.shows("#place", "kitchen")
}

// TestBrowserRejectedName checks that a rejected name leads back to the sign-in form, with the
// reason.
func TestBrowserRejectedName(t *testing.T) {
	t.Parallel()
	chrome := browser(t)
	s := serve(t, nil)
	b := open(t, chrome, s.url+"?as=a%E2%80%AEb")
	b.shows("#name-error", "4003 Authentication failed")
	b.fill("#name", "ada")
	b.shows("#status", "Connected as ada")
}

// TestBrowserEncryption checks that the page works with optional encryption, and with required
// encryption says how to start the server.
func TestBrowserEncryption(t *testing.T) {
	t.Parallel()
	chrome := browser(t)
	required := serve(t, map[string]string{"encryption": "required"})
	open(t, chrome, required.url+"?as=ada").shows("#name-error", "4004 Encryption required (this page does not support encryption: start the server with --encryption optional to use it)")
	optional := serve(t, map[string]string{"encryption": "optional"})
	open(t, chrome, optional.url+"?as=ada").shows("#status", "Connected as ada")
}

// TestBrowserBinary tests the binary in the way a user runs it.
func TestBrowserBinary(t *testing.T) {
	t.Parallel()
	chrome := browser(t)
	_, file, _, _ := runtime.Caller(0)
	binary := filepath.Join(t.TempDir(), "hearth")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/hearth")
	build.Dir = filepath.Dir(file)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "serve", "--listen", "127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder         // owned by the reading goroutine until it has ended
	serving := make(chan string, 1) // the address
	p, err := child.Start(cmd, func() {
		defer close(serving)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			log.WriteString(s.Text() + "\n")
			var line struct{ Msg, URL string }
			if json.Unmarshal(s.Bytes(), &line) == nil && line.Msg == "serving" {
				serving <- line.URL
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		_ = p.Wait()
	})
	address, ok := <-serving
	if !ok {
		t.Fatal("the server does not serve")
	}

	ada := open(t, chrome, address+"?as=ada", "net::ERR_CONNECTION_REFUSED")
	grace := open(t, chrome, address+"?as=grace", "net::ERR_CONNECTION_REFUSED")
	ada.shows("#members", "2 clients")
	ada.say("hello from the binary")
	grace.shows("#log", "hello from the binary")
	ada.shows(".got", "2 of 2 clients received it")

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*tab{ada, grace} {
		b.shows("#status", "1012 Service restart")
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	if !strings.Contains(log.String(), "DEVELOPMENT MODE") {
		t.Errorf("the log has no warning: %s", log.String())
	}
}
