package nat

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// span is a range of addresses of one family, both ends included.
type span struct{ lo, hi netip.Addr }

// binding gives the addresses of a prefix a value. The empty value is a hole:
// it takes addresses away from shorter prefixes.
type binding struct {
	prefix netip.Prefix
	value  string
}

// piece is a span and its value.
type piece struct {
	span
	value string
}

func prefixSpan(p netip.Prefix) span { return span{p.Masked().Addr(), lastOf(p)} }

// lastOf is the highest address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As16()
	n := p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	for i := n; i < 128; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return last.Unmap()
	}
	return last
}

// String is the canonical form of an interval element: an address, a prefix if
// the span is one, else "first-last".
func (s span) String() string {
	if s.lo == s.hi {
		return addrText(s.lo)
	}
	p := netip.PrefixFrom(s.lo, commonBits(s.lo, s.hi))
	if p.Masked().Addr() == s.lo && lastOf(p) == s.hi {
		return addrText(s.lo) + "/" + strconv.Itoa(p.Bits())
	}
	return addrText(s.lo) + "-" + addrText(s.hi)
}

// commonBits is the number of leading bits that two addresses of one family
// share.
func commonBits(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	n := 0
	for i := range x {
		n += bits.LeadingZeros8(x[i] ^ y[i])
		if x[i] != y[i] {
			break
		}
	}
	if a.Is4() {
		n -= 96
	}
	return n
}

// addrText writes IPv4-mapped IPv6 addresses in hex, which nft reads as IPv6 in
// every place.
func addrText(a netip.Addr) string {
	if a.Is4In6() {
		b := a.As16()
		return fmt.Sprintf("::ffff:%x:%x", uint(b[12])<<8|uint(b[13]), uint(b[14])<<8|uint(b[15]))
	}
	return a.String()
}

// parseSpan reads what String writes.
func parseSpan(text string) (span, error) {
	if first, last, ok := strings.Cut(text, "-"); ok {
		lo, err := netip.ParseAddr(first)
		if err != nil {
			return span{}, fmt.Errorf("parse range %q: %w", text, err)
		}
		hi, err := netip.ParseAddr(last)
		if err != nil {
			return span{}, fmt.Errorf("parse range %q: %w", text, err)
		}
		if lo.Is4() != hi.Is4() || hi.Less(lo) || lo.Zone() != "" || hi.Zone() != "" {
			return span{}, fmt.Errorf("parse range %q: first and last do not make a range", text)
		}
		return span{lo, hi}, nil
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return span{}, fmt.Errorf("parse prefix: %w", err)
		}
		return prefixSpan(p), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return span{}, fmt.Errorf("parse address %q: no address without a zone", text)
	}
	return span{a, a}, nil
}

// disjoint turns bindings of one family, of which the longest prefix wins, into
// pieces that do not overlap, in ascending order. Holes are left out. A prefix
// with the value of the next shorter one around it does not split it; apart
// from that neighbours are not merged, so that an edit of one binding changes
// few pieces. Of equal prefixes the greatest value wins.
func disjoint(bindings []binding) []piece {
	bs := slices.Clone(bindings)
	for i := range bs {
		bs[i].prefix = bs[i].prefix.Masked()
	}
	slices.SortFunc(bs, func(a, b binding) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), strings.Compare(a.value, b.value))
	})
	var out []piece
	var open []piece    // the prefixes around the current address, innermost last
	var next netip.Addr // first address not yet given out; invalid behind the last one
	emit := func(hi netip.Addr, value string) {
		if next.IsValid() && next.Compare(hi) <= 0 && value != "" {
			out = append(out, piece{span{next, hi}, value})
		}
	}
	closeTop := func() {
		top := open[len(open)-1]
		emit(top.hi, top.value)
		if next.IsValid() && next.Compare(top.hi) <= 0 {
			next = top.hi.Next()
		}
		open = open[:len(open)-1]
	}
	for _, b := range bs {
		s := prefixSpan(b.prefix)
		for len(open) > 0 && open[len(open)-1].hi.Less(s.lo) {
			closeTop()
		}
		if len(open) > 0 {
			top := open[len(open)-1]
			if top.value == b.value {
				continue
			}
			if s.lo != top.lo {
				emit(s.lo.Prev(), top.value)
			}
		}
		open, next = append(open, piece{s, b.value}), s.lo
	}
	for len(open) > 0 {
		closeTop()
	}
	return out
}

// within cuts pieces down to the allowed spans. Both are ascending and free of
// overlaps.
func within(pieces []piece, allowed []span) []piece {
	var out []piece
	i := 0
	for _, p := range pieces {
		for i < len(allowed) && allowed[i].hi.Less(p.lo) {
			i++
		}
		for j := i; j < len(allowed) && allowed[j].lo.Compare(p.hi) <= 0; j++ {
			out = append(out, piece{span{later(p.lo, allowed[j].lo), earlier(p.hi, allowed[j].hi)}, p.value})
		}
	}
	return out
}

// fill gives the parts of the allowed spans that no piece covers a value.
func fill(pieces []piece, allowed []span, value string) []piece {
	out := slices.Clone(pieces)
	i := 0
	for _, a := range allowed {
		next := a.lo
		for i < len(pieces) && pieces[i].hi.Less(a.lo) {
			i++
		}
		for j := i; j < len(pieces) && pieces[j].lo.Compare(a.hi) <= 0 && next.IsValid(); j++ {
			if next.Less(pieces[j].lo) {
				out = append(out, piece{span{next, pieces[j].lo.Prev()}, value})
			}
			next = pieces[j].hi.Next()
		}
		if next.IsValid() && next.Compare(a.hi) <= 0 {
			out = append(out, piece{span{next, a.hi}, value})
		}
	}
	slices.SortFunc(out, func(a, b piece) int { return a.lo.Compare(b.lo) })
	return out
}

// covering gives the spans of the prefixes without nested ones.
func covering(prefixes []netip.Prefix) []span {
	bindings := make([]binding, 0, len(prefixes))
	for _, p := range prefixes {
		bindings = append(bindings, binding{p, "in"})
	}
	var out []span
	for _, p := range disjoint(bindings) {
		out = append(out, p.span)
	}
	return out
}

// union adds spans to spans that do not overlap. Those of have that overlap no
// added one stay as they are.
func union(have, add []span) []span {
	out := slices.Clone(have)
	for _, a := range add {
		hull := a
		rest := out[:0:0]
		for _, h := range out {
			if h.hi.Less(a.lo) || a.hi.Less(h.lo) {
				rest = append(rest, h)
				continue
			}
			hull = span{earlier(hull.lo, h.lo), later(hull.hi, h.hi)}
		}
		out = append(rest, hull)
	}
	slices.SortFunc(out, func(a, b span) int { return a.lo.Compare(b.lo) })
	return out
}

func earlier(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return a
	}
	return b
}

func later(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}
