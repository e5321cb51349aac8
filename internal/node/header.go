package node

import "bytes"

// headerEnd returns the length of the request header in b, including its empty line, or -1 if the
// header is incomplete. It searches from b[from] on. As in net/http, a line may end without a CR.
func headerEnd(b []byte, from int) int {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return -1
		}
		from += i + 1
		if rest := b[from:]; len(rest) > 0 && rest[0] == '\n' {
			return from + 1
		} else if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return from + 2
		}
	}
}

// strictHeader reports whether net/http's server certainly accepts the header of a request that its
// parser accepts. It rejects control characters, names with spaces, several Host lines, hosts with
// unusual characters, Expect, and folded lines.
func strictHeader(head []byte) bool {
	hosts := 0
	for i := 0; len(head) > 0; i++ {
		line, rest, _ := bytes.Cut(head, []byte("\n"))
		head = rest
		line = bytes.TrimSuffix(line, []byte("\r"))
		if bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7F }) {
			return false
		}
		if i == 0 || len(line) == 0 {
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.ContainsAny(name, " \t") {
			return false
		}
		if bytes.EqualFold(name, []byte("Expect")) {
			return false
		}
		if bytes.EqualFold(name, []byte("Host")) {
			hosts++
			if !strictHost(bytes.TrimSpace(value)) {
				return false
			}
		}
	}
	return hosts == 1
}

// strictHost reports whether the host consists of letters, digits and the punctuation of addresses.
func strictHost(host []byte) bool {
	for _, c := range host {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}
