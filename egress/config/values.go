package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxQuoted bounds how much of a user's value a message repeats.
const maxQuoted = 80

func shorten(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	return strings.ToValidUTF8(s[:maxQuoted], "") + "..."
}

// quote makes s fit into one line of a message.
func quote(s string) string { return strconv.Quote(shorten(s)) }

// required reports whether s is there.
func (r *report) required(at path, s, what string) bool {
	if s == "" {
		r.add(at, "is missing: %s", what)
	}
	return s != ""
}

// nameRule is what every name of an object looks like.
const nameRule = "lower case letters, digits and '-', beginning and ending with a letter or digit"

func validName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return s != ""
}

// name checks the name of an object of at most limit bytes.
func (r *report) name(at path, s string, limit int) bool {
	switch {
	case !r.required(at, s, "every entry needs a name"):
		return false
	case !validName(s):
		r.add(at, "%s is not a valid name: use %s", quote(s), nameRule)
		return false
	case len(s) > limit:
		r.add(at, "%s is %d characters long, at most %d are allowed", quote(s), len(s), limit)
		return false
	}
	return true
}

// device checks the name of a network device as the kernel does (dev_valid_name
// in net/core/dev.c): 1 to 15 bytes, no slash, colon or white space.
func (r *report) device(at path, s string) bool {
	switch {
	case !r.required(at, s, "the name of a network device"):
		return false
	case len(s) > 15:
		r.add(at, "%s is %d bytes long, the kernel allows 15 for a device name", quote(s), len(s))
		return false
	case s == "." || s == ".." || strings.ContainsFunc(s, func(c rune) bool {
		return c == '/' || c == ':' || unicode.IsSpace(c) || unicode.IsControl(c) || c == '"' || c == '*' || c == '\\' || c > unicode.MaxASCII
	}):
		r.add(at, "%s is not a device name: no spaces, slashes, colons, quotes, '*', backslashes or non-ASCII characters", quote(s))
		return false
	case s == "lo" || s == "all" || s == "default":
		r.add(at, "%s cannot be used: it is not an interface that carries traffic", quote(s))
		return false
	}
	return true
}

// oneOf checks s against the allowed words; an absent s is def.
func (r *report) oneOf(at path, s, def string, allowed ...string) string {
	if s == "" {
		return def
	}
	if !slices.Contains(allowed, s) {
		r.add(at, "%s is not allowed: use %s", quote(s), alternatives(allowed))
		return def
	}
	return s
}

// integer checks that n lies between low and high; an absent n is def.
func (r *report) integer(at path, n *int64, def, low, high int64) int64 {
	if n == nil {
		return def
	}
	if *n < low || *n > high {
		r.add(at, "%d is out of range: %d to %d are allowed", *n, low, high)
		return def
	}
	return *n
}

// duration checks that d lies between low and high; an absent d is def.
func (r *report) duration(at path, d Duration, def, low, high time.Duration) time.Duration {
	if d == "" {
		return def
	}
	v, err := time.ParseDuration(string(d))
	if err != nil {
		r.add(at, "%s is not a duration: write a number with a unit, such as 300ms, 5s or 1m30s", quote(string(d)))
		return def
	}
	if v < low || v > high {
		r.add(at, "%s is out of range: %s to %s are allowed", v, short(low), short(high))
		return def
	}
	return v
}

// seconds is duration for protocols that count in whole seconds.
func (r *report) seconds(at path, d Duration, def, low, high time.Duration) time.Duration {
	v := r.duration(at, d, def, low, high)
	if v%time.Second != 0 {
		r.add(at, "%s is not allowed: the protocol counts in whole seconds", v)
		return def
	}
	return v
}

// short prints 1m0s as 1m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// addr checks an address without a zone that is not IPv4-mapped (RFC 4291 2.5.5.2).
func (r *report) addr(at path, s string) (netip.Addr, bool) {
	if !r.required(at, s, "an IPv4 or IPv6 address") {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		r.add(at, "%s is not an IPv4 or IPv6 address", quote(s))
	case a.Zone() != "":
		r.add(at, "%s has a zone: write the address alone", quote(s))
	case a.Is4In6():
		r.add(at, "%s is an IPv4-mapped IPv6 address: write %s", quote(s), a.Unmap())
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// parsePrefix reads a prefix whose host bits may be set. An address without a
// length is itself.
func (r *report) parsePrefix(at path, s string) (netip.Prefix, bool) {
	if !strings.Contains(s, "/") && s != "" {
		a, ok := r.addr(at, s)
		if !ok {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	if !r.required(at, s, "a prefix such as 10.0.0.0/8 or 2001:db8::/32") {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		r.add(at, "%s is not a prefix such as 10.0.0.0/8 or 2001:db8::/32", quote(s))
	case p.Addr().Is4In6() && p.Bits() >= 96:
		r.add(at, "%s is an IPv4-mapped IPv6 prefix: write %s/%d", quote(s), p.Addr().Unmap(), p.Bits()-96)
	case p.Addr().Is4In6():
		r.add(at, "%s is an IPv4-mapped IPv6 prefix: write it as an IPv4 prefix", quote(s))
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// prefix checks a prefix or single address that has no host bits set.
func (r *report) prefix(at path, s string) (netip.Prefix, bool) {
	p, ok := r.parsePrefix(at, s)
	if ok && p != p.Masked() {
		r.add(at, "%s has host bits set: write %s, or %s for the one address", quote(s), p.Masked(), p.Addr())
		return netip.Prefix{}, false
	}
	return p, ok
}

// special is an address range that never is routed traffic.
type special struct {
	prefix netip.Prefix
	what   string
}

// specials lists them (IANA special-purpose registries, RFC 6890).
func specials() [9]special {
	v4 := func(first byte, second byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{first, second}), bits)
	}
	v6 := func(first, second, last byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: first, 1: second, 15: last}), bits)
	}
	return [9]special{
		{v4(224, 0, 4), "multicast"}, {v6(0xff, 0, 0, 8), "multicast"},
		{v4(127, 0, 8), "loopback"}, {v6(0, 0, 1, 128), "loopback"},
		{v4(169, 254, 16), "link-local"}, {v6(0xfe, 0x80, 0, 10), "link-local"},
		{v4(0, 0, 8), "unspecified"}, {v6(0, 0, 0, 128), "unspecified"},
		{v4(240, 0, 4), "reserved"},
	}
}

// overlapsSpecial says which special range p touches, "" if none.
func overlapsSpecial(p netip.Prefix) string {
	for _, s := range specials() {
		if s.prefix.Overlaps(p) {
			return s.what
		}
	}
	return ""
}

// insideSpecial says which special range p is a part of, "" if none.
func insideSpecial(p netip.Prefix) string {
	for _, s := range specials() {
		if s.prefix.Overlaps(p) && s.prefix.Bits() <= p.Bits() {
			return s.what
		}
	}
	return ""
}

// notHost says why a cannot be the unicast address of one host, "" if it can.
// IPv4 link-local addresses can: providers use them for transfer networks.
func notHost(a netip.Addr) string {
	what := insideSpecial(netip.PrefixFrom(a, a.BitLen()))
	if what == "link-local" && a.Is4() {
		return ""
	}
	return what
}

func containsAddr(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// family names the address family for messages.
func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// alternatives joins words as "a, b or c".
func alternatives(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return fmt.Sprintf("%s or %s", strings.Join(words[:len(words)-1], ", "), words[len(words)-1])
}
