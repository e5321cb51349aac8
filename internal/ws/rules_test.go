package ws_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hearthws/hearth/internal/ws"
)

// rule is one case: the client's input, and all resulting calls. The names begin with the section
// of the Autobahn test suite with the same case.
type rule struct {
	name  string
	input []byte
	want  []string
}

func says(events ...string) []string { return events }

func runRules(t *testing.T, s side, rules []rule) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			check(t, s, r.input, r.want...)
		})
	}
}

// longText is how the recorder shows a message that is too long.
func longText(kind, payload string) string {
	var r recorder
	r.add(kind, []byte(payload))
	return r.events[0]
}

func TestFraming(t *testing.T) {
	t.Parallel()
	var rules []rule
	for _, n := range []int{0, 1, 125, 126, 127, 128, 1000, 65535, 65536, 70000} {
		p := strings.Repeat("*", n)
		rules = append(rules,
			rule{fmt.Sprintf("1.1 text of %d", n), masked(fin|text, p), says(longText("text", p))},
			rule{fmt.Sprintf("1.2 binary of %d", n), masked(fin|binmsg, p+"\xff"), says(longText("binary", p+"\xff"))})
	}
	rules = append(rules,
		rule{"1.3 many in one chunk", join(masked(fin|text, "a"), masked(fin|binmsg, "b"), masked(fin|text, "")), says(`text "a"`, `binary "b"`, `text ""`)},
		rule{"1.4 unmasked", plain(fin|text, "a"), says("error 1002")},
		rule{"1.5 nothing", nil, nil},
	)
	runRules(t, side{}, rules)
}

func TestPingPong(t *testing.T) {
	t.Parallel()
	max := strings.Repeat("\xfe", 125)
	runRules(t, side{}, []rule{
		{"2.1 empty ping", masked(fin|ping, ""), says(`ping ""`)},
		{"2.2 ping", masked(fin|ping, "hello"), says(`ping "hello"`)},
		{"2.3 binary ping", masked(fin|ping, "\x00\xff\xfe"), says(`ping "\x00\xff\xfe"`)},
		{"2.4 longest ping", masked(fin|ping, max), says(longText("ping", max))},
		{"2.5 ping too long", masked(fin|ping, max+"x"), says("error 1002")},
		{"2.5 pong too long", masked(fin|pong, strings.Repeat("x", 70000)), says("error 1002")},
		{"2.7 pong nobody asked for", masked(fin|pong, ""), says(`pong ""`)},
		{"2.9 pong then ping", join(masked(fin|pong, "x"), masked(fin|ping, "y")), says(`pong "x"`, `ping "y"`)},
	})
}

func TestReserved(t *testing.T) {
	t.Parallel()
	rules := []rule{}
	for _, bits := range []byte{0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70} {
		for _, op := range []byte{text, binmsg, ping, pong, closing} {
			rules = append(rules, rule{fmt.Sprintf("3 bits %#x opcode %d", bits, op),
				join(masked(fin|text, "before"), masked(fin|bits|op, ""), masked(fin|ping, "after")),
				says(`text "before"`, "error 1002")})
		}
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		rules = append(rules, rule{fmt.Sprintf("4 opcode %d", op),
			join(masked(fin|text, "before"), masked(fin|op, "x"), masked(fin|ping, "")), says(`text "before"`, "error 1002")})
	}
	runRules(t, side{}, rules)
}

func TestFragmentation(t *testing.T) {
	t.Parallel()
	runRules(t, side{}, []rule{
		{"5.1 fragmented ping", join(masked(ping, "a"), masked(fin|cont, "b")), says("error 1002")},
		{"5.2 fragmented pong", masked(pong, "a"), says("error 1002")},
		{"5.2 fragmented close", masked(closing, ""), says("error 1002")},
		{"5.3 two fragments", join(masked(text, "ab"), masked(fin|cont, "cd")), says(`text "abcd"`)},
		{"5.3 three, empty ones among them", join(masked(binmsg, ""), masked(cont, "x"), masked(fin|cont, "")), says(`binary "x"`)},
		{"5.3 all empty", join(masked(text, ""), masked(cont, ""), masked(fin|cont, "")), says(`text ""`)},
		{"5.6 ping between", join(masked(text, "a"), masked(fin|ping, "p"), masked(fin|cont, "b")), says(`ping "p"`, `text "ab"`)},
		{"5.7 control frames between", join(masked(text, "a"), masked(fin|pong, "1"), masked(cont, "b"), masked(fin|ping, "2"), masked(fin|cont, "c"), masked(fin|text, "next")),
			says(`pong "1"`, `ping "2"`, `text "abc"`, `text "next"`)},
		{"5.8 close between", join(masked(text, "a"), masked(fin|closing, ""), masked(fin|cont, "b")), says(`close 1005 ""`)},
		{"5.9 continuation of nothing", join(masked(cont, "a"), masked(fin|text, "b")), says("error 1002")},
		{"5.10 final continuation of nothing", masked(fin|cont, "a"), says("error 1002")},
		{"5.11 continuation after the end", join(masked(text, "a"), masked(fin|cont, "b"), masked(fin|cont, "c")), says(`text "ab"`, "error 1002")},
		{"5.18 text inside text", join(masked(text, "a"), masked(fin|text, "b")), says("error 1002")},
		{"5.18 fragmented inside fragmented", join(masked(binmsg, "a"), masked(text, "b")), says("error 1002")},
		{"5.19 long fragments", join(masked(binmsg, strings.Repeat("a", 300)), masked(cont, strings.Repeat("b", 70)), masked(fin|cont, strings.Repeat("c", 900))),
			says(longText("binary", strings.Repeat("a", 300)+strings.Repeat("b", 70)+strings.Repeat("c", 900)))},
		{"5.20 each masked with its own key", join(masked(text, "abcde"), zeroKey(fin|cont, "fgh")), says(`text "abcdefgh"`)},
	})
}

// zeroKey returns a frame masked with zeros.
func zeroKey(first byte, payload string) []byte {
	b := append(lengthOf([]byte{first}, 0x80, len(payload)), 0, 0, 0, 0)
	return append(b, payload...)
}

func TestUTF8(t *testing.T) {
	t.Parallel()
	good := "Hello-µ@ßöäüàá-UTF-8!! κόσμε 𐀀 \U0010FFFF \u0800 \uFFFD \uFFFE \uD7FF \uE000"
	rules := []rule{
		{"6.2 good", masked(fin|text, good), says(longText("text", good))},
		{"6.4 bad, and the frame goes on", masked(fin|text, "\xce\xba\xf4\x90\x80\x80edited")[:10], says("error 1007")},
		{"6.4 bad in a frame far from complete", masked(fin|text, "abc\xff"+strings.Repeat("d", 1000))[:12], says("error 1007")},
		{"6.4 bad in the first fragment", masked(text, "\xed\xa0"), says("error 1007")},
		{"6.4 nothing wrong yet", masked(fin|text, "\xf0\x9f\x98\x80")[:9], nil},
		{"6.4 a ping between is no help", join(masked(text, "\xc3"), masked(fin|ping, ""), masked(fin|cont, "\x28")), says(`ping ""`, "error 1007")},
		{"6.5 binary is not text", masked(fin|binmsg, "\xff\xfe"), says(`binary "\xff\xfe"`)},
		{"6.6 rune cut off at the end", join(masked(text, "a"), masked(fin|cont, "\xe2\x82")), says("error 1007")},
	}
	for _, bad := range []string{
		"\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xc2", "\xc3\x28", "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xe2\x82", "\xe2\x28\xa1",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf0\x90\x8d", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfe", "\xff",
	} {
		rules = append(rules,
			rule{fmt.Sprintf("6.3 bad %q", bad), join(masked(fin|text, "ok "+bad), masked(fin|ping, "")), says("error 1007")},
			rule{fmt.Sprintf("6.3 bad %q in fragments", bad), join(masked(text, "ok "), masked(cont, bad[:1]), masked(fin|cont, bad[1:]+" ")), says("error 1007")})
	}
	for i := 1; i < len(good); i++ {
		rules = append(rules, rule{fmt.Sprintf("6.2 good in fragments, cut at %d", i), join(masked(text, good[:i]), masked(fin|cont, good[i:])), says(longText("text", good))})
	}
	runRules(t, side{}, rules)
}

func TestClose(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("r", 123)
	rules := []rule{
		{"7.1 nothing counts after a close", join(masked(fin|closing, closePayload(1000, "")), masked(fin|text, "x"), plain(0xff, "junk")), says(`close 1000 ""`)},
		{"7.3 empty", masked(fin|closing, ""), says(`close 1005 ""`)},
		{"7.3 one byte", masked(fin|closing, "a"), says("error 1002")},
		{"7.3 with a reason", masked(fin|closing, closePayload(1000, "Hello World!")), says(`close 1000 "Hello World!"`)},
		{"7.3 longest", masked(fin|closing, closePayload(1000, longest)), says(fmt.Sprintf("close 1000 %q", longest))},
		{"7.3 too long", masked(fin|closing, closePayload(1000, longest+"r")), says("error 1002")},
		{"7.5 reason is not UTF-8", masked(fin|closing, closePayload(1000, "\xce\xba\xed\xa0\x80")), says("error 1007")},
		{"7.6 bad code before bad reason", masked(fin|closing, closePayload(999, "\xff")), says("error 1002")},
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		rules = append(rules, rule{fmt.Sprintf("7.7 code %d", code), masked(fin|closing, closePayload(code, "")), says(fmt.Sprintf(`close %d ""`, code))})
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		rules = append(rules, rule{fmt.Sprintf("7.9 code %d", code), masked(fin|closing, closePayload(code, "")), says("error 1002")})
	}
	runRules(t, side{}, rules)
}

func TestLengths(t *testing.T) {
	t.Parallel()
	head := func(b ...byte) []byte { return append(b, testKey[:]...) }
	runRules(t, side{limit: 1000}, []rule{
		{"9.1 at the limit", masked(fin|text, strings.Repeat("x", 1000)), says(longText("text", strings.Repeat("x", 1000)))},
		{"9.1 over the limit, judged by the header", masked(fin|text, strings.Repeat("x", 1001))[:4], says("error 1009")},
		{"9.1 huge, judged by the header", head(fin|text, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)[:10], says("error 1009")},
		{"9.1 control frames don't count", join(masked(text, strings.Repeat("x", 999)), masked(fin|ping, "1234"), masked(fin|cont, "x")),
			says(`ping "1234"`, longText("text", strings.Repeat("x", 1000)))},
		{"9.3 fragments over the limit", join(masked(text, strings.Repeat("x", 999)), masked(fin|cont, "xy")), says("error 1009")},
		{"9.3 fragment over the limit although more follow", join(masked(text, strings.Repeat("x", 999)), masked(cont, "xy")), says("error 1009")},
		{"9.5 the limit is for each message", join(masked(fin|text, strings.Repeat("x", 999)), masked(fin|text, strings.Repeat("x", 999))),
			says(longText("text", strings.Repeat("x", 999)), longText("text", strings.Repeat("x", 999)))},
		{"length not shortest, 16 bits", head(fin|text, 0xfe, 0, 125), says("error 1002")},
		{"length not shortest, 64 bits", head(fin|text, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff), says("error 1002")},
		{"length with the top bit", head(fin|text, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1), says("error 1002")},
		{"control length in 16 bits", head(fin|ping, 0xfe, 0, 5), says("error 1002")},
		{"control length in 64 bits", head(fin|ping, 0xff, 0, 0, 0, 0, 0, 0, 0, 5), says("error 1002")},
	})
}

func TestCompression(t *testing.T) {
	t.Parallel()
	hello := strings.Repeat("Hello, κόσμε! ", 40)
	z := deflated(hello)
	frag := func(tail string, parts ...string) []byte {
		b := masked(rsv1|text, parts[0])
		for _, p := range parts[1:] {
			b = append(b, masked(cont, p)...)
		}
		return append(b, masked(fin|cont, tail)...)
	}
	runRules(t, side{limit: 1 << 16, deflate: true}, []rule{
		{"12.1 RFC 7692 §7.2.3.1", masked(fin|rsv1|text, "\xf2\x48\xcd\xc9\xc9\x07\x00"), says(`text "Hello"`)},
		{"12.1 RFC 7692 §7.2.3.1 in fragments", join(masked(rsv1|text, "\xf2\x48\xcd"), masked(fin|cont, "\xc9\xc9\x07\x00")), says(`text "Hello"`)},
		{"12.1 RFC 7692 §7.2.3.3, not compressed", masked(fin|rsv1|text, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), says(`text "Hello"`)},
		{"12.1 RFC 7692 §7.2.3.4, final block", masked(fin|rsv1|text, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), says(`text "Hello"`)},
		{"12.1 RFC 7692 §7.2.3.5, two blocks", masked(fin|rsv1|text, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), says(`text "Hello"`)},
		{"12.1 RFC 7692 §7.2.3.6, empty", masked(fin|rsv1|text, "\x00"), says(`text ""`)},
		{"12.1 no payload at all", masked(fin|rsv1|text, ""), says(`text ""`)},
		{"12.1 final block and nothing after", masked(fin|rsv1|text, "\xf3\x48\xcd\xc9\xc9\x07\x00"), says(`text "Hello"`)},
		{"12.1 final empty stored block, its end cut like a flush", masked(fin|rsv1|text, "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x01"), says(`text "Hello"`)},
		{"12.1 final block, then more", masked(fin|rsv1|text, deflatedFinal("one ")+deflated("two")), says(`text "one two"`)},
		{"12.1 final block, then more that points back over it", masked(fin|rsv1|text, deflatedFinal("one two three ")+deflatedAfter("one two three ", "one two three")), says(`text "one two three one two three"`)},
		{"12.2 long", masked(fin|rsv1|binmsg, z), says(longText("binary", hello))},
		{"12.2 each message alone", join(masked(fin|rsv1|text, z), masked(fin|rsv1|text, z)), says(longText("text", hello), longText("text", hello))},
		{"12.3 fragments, one byte first", frag(z[1:], z[:1]), says(longText("text", hello))},
		{"12.3 fragments, empty ones", frag("", "", z, ""), says(longText("text", hello))},
		{"12.3 ping between", join(masked(rsv1|text, z[:4]), masked(fin|ping, "p"), masked(fin|cont, z[4:])), says(`ping "p"`, longText("text", hello))},
		{"12.4 not compressed, although agreed", masked(fin|text, "plain"), says(`text "plain"`)},
		{"13.1 bit on a continuation", join(masked(rsv1|text, z[:4]), masked(fin|rsv1|cont, z[4:])), says("error 1002")},
		{"13.1 bit on a continuation only", join(masked(text, "a"), masked(fin|rsv1|cont, "b")), says("error 1002")},
		{"13.1 bit on a ping", masked(fin|rsv1|ping, ""), says("error 1002")},
		{"13.1 bit on a close", masked(fin|rsv1|closing, ""), says("error 1002")},
		{"13.2 not DEFLATE", masked(fin|rsv1|text, "\xff\xff\xff\xff"), says("error 1007")},
		{"13.2 cut short", masked(fin|rsv1|text, z[:len(z)/2]), says("error 1007")},
		{"13.2 points before the message", masked(fin|rsv1|text, "\x02\x13\x00\x00"), says("error 1007")},
		{"13.3 text that is not UTF-8", masked(fin|rsv1|text, deflated("abc\xff")), says("error 1007")},
		{"13.3 binary is not text", masked(fin|rsv1|binmsg, deflated("abc\xff")), says(`binary "abc\xff"`)},
		{"13.4 at the limit", masked(fin|rsv1|binmsg, deflated(strings.Repeat("x", 1<<16))), says(longText("binary", strings.Repeat("x", 1<<16)))},
		{"13.4 over the limit", masked(fin|rsv1|binmsg, deflated(strings.Repeat("x", 1<<16+1))), says("error 1009")},
		{"13.4 bomb", masked(fin|rsv1|binmsg, deflated(strings.Repeat("\x00", 20<<20))), says("error 1009")},
		{"13.5 final blocks by the hundred", masked(fin|rsv1|binmsg, strings.Repeat("\x03\x00", 500)), says("error 1007")},
		{"13.6 longer compressed than any message may be", masked(fin|rsv1|binmsg, strings.Repeat("\x00\x00\x00\xff\xff", 20000))[:10], says("error 1009")},
	})
}

func TestClientSide(t *testing.T) {
	t.Parallel()
	runRules(t, side{role: ws.Client}, []rule{
		{"unmasked", join(plain(fin|text, "a"), plain(binmsg, "b"), plain(fin|ping, "c"), plain(fin|cont, "d")), says(`text "a"`, `ping "c"`, `binary "bd"`)},
		{"long", plain(fin|text, strings.Repeat("a", 70000)), says(longText("text", strings.Repeat("a", 70000)))},
		{"masked", masked(fin|text, "a"), says("error 1002")},
		{"close", plain(fin|closing, closePayload(4001, "Authentication timeout")), says(`close 4001 "Authentication timeout"`)},
	})
}
