package resp

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// TestReplies checks replies and pushes, read at once and byte by byte.
func TestReplies(t *testing.T) {
	t.Parallel()
	greet, subscribe, unsubscribe, ping := []string{"HELLO", "3"}, []string{"SUBSCRIBE", "a", "b"}, []string{"UNSUBSCRIBE", "a"}, []string{"PING"}
	type list = [][]string
	for name, tt := range map[string]struct {
		commands list
		in       string
		replies  []string
		bad      string // in the error; "" for none
	}{
		"nothing": {},
		"reply":   {commands: list{greet}, in: "%2\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*2\r\n*0\r\n~1\r\n_\r\n", replies: []string{"%[$proto 3 $modules *[*[] ~[null]]]"}},
		"scalars": {commands: list{greet}, in: "*9\r\n+\r\n-E\r\n:-5\r\n,1.5\r\n#t\r\n(123\r\n=5\r\ntxt:a\r\n!1\r\ne\r\n$-1\r\n",
			replies: []string{"*[+ -E -5 ,1.5 #t (123 =a !e null]"}},
		"old null":          {commands: list{greet}, in: "*-1\r\n", replies: []string{"null"}},
		"unknown push":      {in: push("server-cpu-usage", "7") + ">2\r\n$3\r\nnew\r\n*1\r\n%1\r\n+a\r\n_\r\n"},
		"push before reply": {commands: list{greet}, in: push("new", "c", "y") + "+OK\r\n", replies: []string{"+OK"}},
		"subscribed":        {commands: list{subscribe, greet}, in: push("subscribe", "a", "1") + push("subscribe", "b", "2") + "+OK\r\n", replies: []string{"null", "+OK"}},
		"refused":           {commands: list{subscribe, greet}, in: "-NOPERM no\r\n+OK\r\n", replies: []string{"-NOPERM no", "+OK"}},
		"unsubscribed":      {commands: list{unsubscribe, ping}, in: push("unsubscribe", "a", "0") + "+PONG\r\n", replies: []string{"null", "+PONG"}},
		"ping refused":      {commands: list{unsubscribe, ping}, in: push("unsubscribe", "a", "0") + "-MISCONF disk\r\n", replies: []string{"null", "-MISCONF disk"}},
		"both refused":      {commands: list{unsubscribe, ping}, in: "-BUSY with a script\r\n-BUSY with a script\r\n", replies: []string{"-BUSY with a script", "-BUSY with a script"}},
		"only it refused":   {commands: list{unsubscribe, ping}, in: "-NOPERM no\r\n+PONG\r\n", replies: []string{"-NOPERM no", "+PONG"}},
		"half a push":       {in: push("new", "c", "y")[:16]},

		"message":          {in: push("message", "c", "y"), bad: "not requested"},
		"unasked":          {commands: list{greet}, in: "+OK\r\n+OK\r\n", replies: []string{"+OK"}, bad: "a reply without a command"},
		"one too many":     {commands: list{subscribe}, in: push("subscribe", "a", "1") + push("subscribe", "b", "2") + push("subscribe", "b", "2"), replies: []string{"null"}, bad: "not requested"},
		"another one":      {commands: list{subscribe}, in: push("unsubscribe", "a", "1"), bad: "not requested"},
		"early reply":      {commands: list{subscribe}, in: push("subscribe", "a", "1") + "-ERR\r\n", bad: "a plain reply to subscribe"},
		"plain reply":      {commands: list{subscribe}, in: "+OK\r\n", bad: "a plain reply to subscribe"},
		"of two elements":  {commands: list{subscribe}, in: push("subscribe", "a"), bad: "with 1 elements"},
		"of no number":     {commands: list{subscribe}, in: push("subscribe", "a", "b"), bad: "without a number"},
		"of null":          {commands: list{subscribe}, in: ">3\r\n$9\r\nsubscribe\r\n$-1\r\n:1\r\n", bad: "a length of"},
		"sharded":          {in: push("sunsubscribe", "a", "1"), bad: "not requested"},
		"ends too late":    {in: ">3\r\n$3\r\nnews\r\n", bad: "longer than its header"},
		"body too long":    {in: ">3\r\n$3\r\nnew\r\n$1\r\ncc\r\n", bad: "longer than its header"},
		"no kind":          {in: ">1\r\n$0\r\n\r\n", bad: "without a kind"},
		"deep":             {commands: list{greet}, in: strings.Repeat("*1\r\n", 9), bad: "within each other"},
		"many":             {commands: list{greet}, in: "*16385\r\n", bad: "a length of"},
		"large reply":      {commands: list{greet}, in: "$65537\r\n", bad: "a length of"},
		"push in an array": {commands: list{greet}, in: "*1\r\n>1\r\n", bad: "a push within"},
		"long line":        {commands: list{greet}, in: "+" + strings.Repeat("x", maxLine), bad: "a line of more"},
		"odd boolean":      {commands: list{greet}, in: "#tt\r\n", bad: "a value is"},
		"odd integer":      {commands: list{greet}, in: ":+1\r\n", bad: "a value is"},
	} {
		for way, r := range map[string]io.Reader{
			"whole": strings.NewReader(tt.in), "cut": iotest.OneByteReader(strings.NewReader(tt.in)),
		} {
			got := receive(r, 0, tt.commands...)
			bad := errors.Is(got.err, ErrProtocol)
			if !slices.Equal(got.replies, tt.replies) || bad != (tt.bad != "") || bad && !strings.Contains(got.err.Error(), tt.bad) || !bad && got.err != io.EOF {
				t.Errorf("%s, %s: got %v; want %q, %q", name, way, got, tt.replies, tt.bad)
			}
		}
	}
}

// TestReplySize checks that a reply is bounded as a whole, however small its parts are, and that
// the name of a channel may be as long as a reply.
func TestReplySize(t *testing.T) {
	t.Parallel()
	const maxString, maxReply = 64 << 10, 16 << 20
	part := fmt.Sprintf("$%d\r\n%s\r\n", maxString, strings.Repeat("x", maxString))
	fits := maxReply / (len(part) + valueCost)
	hello, subscribe := []string{"HELLO"}, []string{"SUBSCRIBE", "a"}
	for name, tt := range map[string]struct {
		commands [][]string
		in       string
		replies  int
		bad      string
	}{
		"two fit":   {[][]string{hello, hello}, fmt.Sprintf("*%d\r\n", fits) + strings.Repeat(part, fits+1), 2, ""},
		"does not":  {[][]string{hello}, fmt.Sprintf("*%d\r\n", fits+1) + strings.Repeat(part, fits+1), 0, "a value of more"},
		"many":      {[][]string{hello}, strings.Repeat("*16384\r\n", 2) + strings.Repeat("*16384\r\n"+strings.Repeat("_\r\n", 16384), 20), 0, "a value of more"},
		"long name": {[][]string{subscribe}, push("subscribe", strings.Repeat("x", 1<<20), "1"), 1, ""},
		"too long":  {[][]string{subscribe}, fmt.Sprintf(">3\r\n$9\r\nsubscribe\r\n$%d\r\n", maxReply+1), 0, "a length of"},
	} {
		got := receive(strings.NewReader(tt.in), 0, tt.commands...)
		bad := errors.Is(got.err, ErrProtocol)
		if len(got.replies) != tt.replies || bad != (tt.bad != "") || bad && !strings.Contains(got.err.Error(), tt.bad) {
			t.Errorf("%s: %d replies, %v; want %d, %q", name, len(got.replies), got.err, tt.replies, tt.bad)
		}
	}
}

const (
	hello   = "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*0\r\n"
	confirm = ">3\r\n$9\r\nsubscribe\r\n$12\r\nws:broadcast\r\n:1\r\n"

	helloReply = "%[$server $redis $proto 3 $modules *[]]"
)

// commands are those to which hello, confirm, and whatever else comes are the replies.
func commands() [][]string {
	list := [][]string{{"HELLO", "3"}, {"SUBSCRIBE", "ws:broadcast"}}
	for range 20 {
		list = append(list, []string{"GET", "x"})
	}
	return list
}

func TestMessages(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 200<<10)
	for name, tt := range map[string]struct {
		text     string
		messages []string
		replies  []string
		garbage  bool
	}{
		"nothing": {text: ""},
		"replies": {
			text: hello + confirm + "-ERR no\r\n+OK\r\n:-7\r\n_\r\n#t\r\n,1.5\r\n(12345678901234567890\r\n$-1\r\n*-1\r\n~1\r\n$0\r\n\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n",
			replies: []string{helloReply, "null", "-ERR no", "+OK", "-7", "null", "#t", ",1.5", "(12345678901234567890",
				"null", "null", "~[$]", "=abc", "!ERR"},
		},
		"a message":    {text: push("message", "c", "hi"), messages: []string{"c hi 2"}},
		"of a pattern": {text: push("pmessage", "c*", "c1", "hi"), messages: []string{"c1 hi 2"}},
		"between replies": {
			text:     hello + push("message", "c", "1") + confirm + push("message", "d", "2") + "+OK\r\n",
			messages: []string{"c 1 1", "d 2 1"}, replies: []string{helloReply, "null", "+OK"},
		},
		"line ends within":      {text: push("message", "c\r\n>3", ">3\r\n$7\r\nmessage\r\n"), messages: []string{"c\r\n>3 >3\r\n$7\r\nmessage\r\n 17"}},
		"empty":                 {text: push("message", "", ""), messages: []string{"  0"}},
		"larger than a buffer":  {text: push("message", "c", large) + push("message", "c", "2"), messages: []string{"c " + large + " 204800", "c 2 1"}},
		"too large":             {text: push("message", "c", large+large) + push("message", "c", "2") + hello, messages: []string{"  409600", "c 2 1"}, replies: []string{helloReply}},
		"an array named so":     {text: "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", replies: []string{"*[$message $c $hi]"}},
		"cut off":               {text: push("message", "c", "1") + push("message", "c", "2")[:20], messages: []string{"c 1 1"}},
		"an attribute":          {text: "|1\r\n+a\r\n:1\r\n+b\r\n", garbage: true},
		"HTTP":                  {text: "HTTP/1.1 400 Bad Request\r\n\r\n", garbage: true},
		"no type":               {text: "\r\n", garbage: true},
		"no line end":           {text: strings.Repeat("+", 70<<10), garbage: true},
		"LF only":               {text: "+OK\n", garbage: true},
		"a large length":        {text: "$999999999999\r\n", garbage: true},
		"a large array":         {text: "*1000000000\r\n", garbage: true},
		"arrays of arrays":      {text: strings.Repeat("*1000000\r\n", 3), garbage: true},
		"a negative length":     {text: "$-7\r\n", garbage: true},
		"no digits":             {text: "$\r\n", garbage: true},
		"a streamed string":     {text: "$?\r\n", garbage: true},
		"a message of a number": {text: ">3\r\n$7\r\nmessage\r\n:7\r\n$2\r\nhi\r\n", garbage: true},
		"a message too long":    {text: ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$99999999999\r\n", garbage: true},
		"a channel too long":    {text: push("message", large, "1") + push("message", "c", "2") + hello, messages: []string{"  204801", "c 2 1"}, replies: []string{helloReply}},
		"of a pattern, so":      {text: push("pmessage", "c*", large, large) + push("message", "c", "2"), messages: []string{"  409600", "c 2 1"}},
		"and nothing in it":     {text: push("message", large, "") + push("message", "c", "2"), messages: []string{"  204800", "c 2 1"}},
		"so, and cut off":       {text: push("message", large, "1")[:70<<10]},
		"so, and garbage":       {text: push("message", large, "1")[:26+200<<10+2] + ":1\r\n", garbage: true},
		"garbage behind it":     {text: push("message", "c", "1") + "nonsense\r\n", messages: []string{"c 1 1"}, garbage: true},
		"longer than it says":   {text: ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nxyz", garbage: true},
		"so, of a channel":      {text: ">3\r\n$7\r\nmessage\r\n$1\r\ncde\r\n", garbage: true},
		"so, passed over":       {text: push("message", "c", large+large)[:33+400<<10] + "xyz", garbage: true},
		"a part missing":        {text: push("message", "c"), garbage: true},
		"a part too many":       {text: push("message", "c", "d", "e"), garbage: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, pieces := range [][]int{{1 << 20}, {1}, {2}, {7}, {1, 3, 5, 1000}, {4096}} {
				if len(tt.text) > 10<<10 && pieces[0] < 100 {
					continue // the same, and slow
				}
				got := receive(&pieceReader{text: tt.text, pieces: pieces}, 300<<10, commands()...)
				if !slices.Equal(got.messages, tt.messages) {
					t.Errorf("in pieces of %v: messages %.100q, want %.100q", pieces, got.messages, tt.messages)
				}
				if !slices.Equal(got.replies, tt.replies) {
					t.Errorf("in pieces of %v: replies %q, want %q", pieces, got.replies, tt.replies)
				}
				if errors.Is(got.err, ErrProtocol) != tt.garbage {
					t.Errorf("in pieces of %v: error %v", pieces, got.err)
				}
			}
		})
	}
}

// batches is a connection that reads text in pieces of 16 KiB, and whose messages are released
// before it reads again.
func batches(text string) *Conn {
	waiting := make([]*Buffer, 0, 100)
	return newConn(&fakeConn{r: &pieceReader{text: text, pieces: []int{16 << 10}}}, Options{
		MaxMessage: 1 << 20,
		OnMessage:  func(m Message) { waiting = append(waiting, m.Buffer) },
		BeforeRead: func() {
			for _, b := range waiting {
				b.Release()
			}
			waiting = waiting[:0]
		},
	})
}

// TestBuffersAreReused checks that released messages leave their memory to the next ones.
func TestBuffersAreReused(t *testing.T) { // not parallel: allocations are counted
	text := strings.Repeat(push("message", "ws:room:lobby", strings.Repeat("x", 250)), 200)
	allocs := testing.AllocsPerRun(20, func() {
		c := batches(text)
		if c.read(); c.Err() != io.EOF {
			t.Error(c.Err())
		}
	})
	if allocs > 20 {
		t.Errorf("%v allocations for 200 messages", allocs)
	}
}

// FuzzReader checks that input means the same however it is cut, and that it does not grow.
func FuzzReader(f *testing.F) {
	for _, text := range []string{
		hello + confirm, push("message", "c", "hi") + push("pmessage", "c*", "c", "hi"), "*1\r\n$3\r\nabc\r\n", "HTTP/1.1",
		hello + push("message", "c", strings.Repeat("x", 200)) + ":7\r\n",
		push("new", "c", strings.Repeat("x", 200)) + "+OK\r\n", push("subscribe", "a", "1") + push("subscribe", "b", "2"),
		push("unsubscribe", "a", "0") + "-MISCONF x\r\n", "%1\r\n+a\r\n*1\r\n~1\r\n#t\r\n$-1\r\n",
	} {
		f.Add([]byte(text), 3, 5, true)
		f.Add([]byte(text), 1, 7, false)
	}
	f.Fuzz(func(t *testing.T, text []byte, a, b int, subscribed bool) {
		if len(text) > 8<<10 {
			t.Skip("long texts are cut byte by byte: slow, and nothing new")
		}
		sent := commands()
		if !subscribed {
			sent = [][]string{{"UNSUBSCRIBE", "a"}, {"PING"}, {"SUBSCRIBE", "a", "b"}}
		}
		whole := receive(&pieceReader{text: string(text), pieces: []int{1 << 20}}, 100, sent...)
		cut := receive(&pieceReader{text: string(text), pieces: []int{a % 100, b % 100}}, 100, sent...)
		if whole.String() != cut.String() || !slices.Equal(whole.messages, cut.messages) || !slices.Equal(whole.replies, cut.replies) {
			t.Errorf("whole: %v\ncut: %v", whole, cut)
		}
		total := 0
		for _, m := range whole.messages {
			total += len(m)
		}
		if total > 2*len(text) {
			t.Errorf("%d bytes became %d", len(text), total)
		}
	})
}

// BenchmarkMessage is the cost of parsing a message of 250 bytes.
func BenchmarkMessage(b *testing.B) {
	one := push("message", "ws:room:lobby", strings.Repeat("x", 250))
	text := strings.Repeat(one, 1000)
	b.ReportAllocs()
	b.SetBytes(int64(len(one)))
	for n := 0; n < b.N; n += 1000 {
		batches(text).read()
	}
}
