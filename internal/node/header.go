package node

import "bytes"

// headerEnd returns where the header of a request in b ends, behind its empty line, or -1. It looks from b[from] on. Lines
// may lack the CR, as they may for net/http.
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

// strictHeader reports whether a request's header has nothing that the server of net/http might refuse and its parser lets
// pass: control characters, names with spaces, several hosts or an odd one, expectations. Folded lines are not plain, either.
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
