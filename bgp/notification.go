package bgp

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// notification is a BGP NOTIFICATION message (RFC 4271 4.5).
type notification struct {
	code, subcode uint8
	// message is the shutdown communication (RFC 9003), if there was one.
	message string
}

func (n notification) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d %s", n.code, n.subcode, errorName(n.code))
	if name := subcodeName(n.code, n.subcode); name != "" {
		b.WriteString(": " + name)
	}
	if n.message != "" {
		fmt.Fprintf(&b, " %q", n.message)
	}
	return b.String()
}

// errorName names an error code of the IANA registry "BGP Error Codes".
func errorName(code uint8) string {
	names := [...]string{1: "message header error", 2: "OPEN message error", 3: "UPDATE message error",
		4: "hold timer expired", 5: "finite state machine error", 6: "cease", 7: "ROUTE-REFRESH message error",
		8: "send hold timer expired"}
	if int(code) < len(names) && names[code] != "" {
		return names[code]
	}
	return "unknown error"
}

// subcodeName names an error subcode, "" where none is defined: RFC 4271 4.5,
// RFC 4486 (cease), RFC 5492, RFC 6608 (state machine), RFC 7313, RFC 8538, RFC
// 9234 and RFC 9384.
func subcodeName(code, subcode uint8) string {
	var names []string
	switch code {
	case 1:
		names = []string{1: "connection not synchronized", 2: "bad message length", 3: "bad message type"}
	case 2:
		names = []string{1: "unsupported version number", 2: "bad peer AS", 3: "bad BGP identifier",
			4: "unsupported optional parameter", 6: "unacceptable hold time", 7: "unsupported capability",
			11: "role mismatch"}
	case 3:
		names = []string{1: "malformed attribute list", 2: "unrecognized well-known attribute",
			3: "missing well-known attribute", 4: "attribute flags error", 5: "attribute length error",
			6: "invalid ORIGIN attribute", 8: "invalid NEXT_HOP attribute", 9: "optional attribute error",
			10: "invalid network field", 11: "malformed AS_PATH"}
	case 5:
		names = []string{1: "unexpected message in OpenSent", 2: "unexpected message in OpenConfirm",
			3: "unexpected message in Established"}
	case 6:
		names = []string{1: "maximum number of prefixes reached", 2: "administrative shutdown",
			3: "peer de-configured", 4: "administrative reset", 5: "connection rejected",
			6: "other configuration change", 7: "connection collision resolution", 8: "out of resources",
			9: "hard reset", 10: "BFD down"}
	case 7:
		names = []string{1: "invalid message length"}
	}
	if int(subcode) < len(names) {
		return names[subcode]
	}
	return ""
}

// printable makes a peer's text harmless for terminals and logs: RFC 9003 asks
// for UTF-8 and for care in showing it. At most 255 bytes of it are kept.
func printable(s string) string {
	if len(s) > 255 {
		s = s[:255]
	}
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s))
}
