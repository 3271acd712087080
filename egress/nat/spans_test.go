package nat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// longest is what disjoint compiles, by looking at every binding: the value of
// the longest prefix that has the address, "" for none.
func longest(bindings []binding, a netip.Addr) string {
	best, value := -1, ""
	for _, b := range bindings {
		if b.prefix.Contains(a) && (b.prefix.Bits() > best || b.prefix.Bits() == best && b.value > value) {
			best, value = b.prefix.Bits(), b.value
		}
	}
	return value
}

func valueAt(pieces []piece, a netip.Addr) string {
	for _, p := range pieces {
		if p.lo.Compare(a) <= 0 && a.Compare(p.hi) <= 0 {
			return p.value
		}
	}
	return ""
}

// edges are the addresses where something could change, and their neighbours.
func edges(prefixes []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, p := range prefixes {
		s := prefixSpan(p)
		for _, a := range []netip.Addr{s.lo.Prev(), s.lo, s.lo.Next(), s.hi.Prev(), s.hi, s.hi.Next()} {
			if a.IsValid() && a.Is4() == p.Addr().Is4() {
				out = append(out, a)
			}
		}
	}
	return out
}

func checkPieces(t *testing.T, pieces []piece) {
	t.Helper()
	for i, p := range pieces {
		if p.value == "" || p.hi.Less(p.lo) {
			t.Fatalf("bad piece %v %q", p.span, p.value)
		}
		if i > 0 && !pieces[i-1].hi.Less(p.lo) {
			t.Fatalf("%v and %v overlap or are out of order", pieces[i-1].span, p.span)
		}
		if again, err := parseSpan(p.span.String()); err != nil || again != p.span {
			t.Fatalf("%q reads as %v, %v", p.span, again, err)
		}
	}
}

func randomBindings(rng *rand.Rand, ipv4 bool) []binding {
	var out []binding
	for range rng.IntN(12) {
		out = append(out, binding{randomPrefix(rng, ipv4), []string{"", "a", "b", "c"}[rng.IntN(4)]})
	}
	return out
}

func prefixesOf(bindings []binding) []netip.Prefix {
	var out []netip.Prefix
	for _, b := range bindings {
		out = append(out, b.prefix)
	}
	return out
}

func TestDisjointIsLongestPrefix(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		ipv4 := rng.IntN(2) == 0
		bindings := randomBindings(rng, ipv4)
		allowed := randomBindings(rng, ipv4)
		pieces, spans := disjoint(bindings), covering(prefixesOf(allowed))
		cut := within(pieces, spans)
		full := fill(cut, spans, "rest")
		checkPieces(t, pieces)
		checkPieces(t, cut)
		checkPieces(t, full)
		for _, a := range edges(append(prefixesOf(bindings), prefixesOf(allowed)...)) {
			want := longest(bindings, a)
			if got := valueAt(pieces, a); got != want {
				t.Fatalf("%v: %s is %q, want %q", bindings, a, got, want)
			}
			in := slices.ContainsFunc(allowed, func(b binding) bool { return b.prefix.Contains(a) })
			if !in {
				want = ""
			}
			if got := valueAt(cut, a); got != want {
				t.Fatalf("%v within %v: %s is %q, want %q", bindings, spans, a, got, want)
			}
			if in && want == "" {
				want = "rest"
			}
			if got := valueAt(full, a); got != want {
				t.Fatalf("%v filled in %v: %s is %q, want %q", bindings, spans, a, got, want)
			}
		}
	}
}

// A prefix with the value of the one around it does not split it.
func TestDisjointDoesNotSplitInVain(t *testing.T) {
	pieces := disjoint([]binding{
		{netip.MustParsePrefix("10.0.0.0/8"), "a"}, {netip.MustParsePrefix("10.1.0.0/16"), "a"}, {netip.MustParsePrefix("10.1.2.0/24"), "b"},
	})
	var got []string
	for _, p := range pieces {
		got = append(got, p.span.String()+" "+p.value)
	}
	if want := []string{"10.0.0.0-10.1.1.255 a", "10.1.2.0/24 b", "10.1.3.0-10.255.255.255 a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnionOfSpans(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		ipv4 := rng.IntN(2) == 0
		a, b := prefixesOf(randomBindings(rng, ipv4)), prefixesOf(randomBindings(rng, ipv4))
		have, add := covering(a), covering(b)
		both := union(have, add)
		var pieces []piece
		for _, s := range both {
			pieces = append(pieces, piece{s, "in"})
		}
		checkPieces(t, pieces)
		for _, addr := range edges(append(a, b...)) {
			in := func(p netip.Prefix) bool { return p.Contains(addr) }
			if want := slices.ContainsFunc(a, in) || slices.ContainsFunc(b, in); (valueAt(pieces, addr) == "in") != want {
				t.Fatalf("%v and %v: %s", have, add, addr)
			}
		}
		for _, s := range have {
			if !slices.ContainsFunc(add, func(o span) bool { return !o.hi.Less(s.lo) && !s.hi.Less(o.lo) }) && !slices.Contains(both, s) {
				t.Fatalf("%v was changed by %v", s, add)
			}
		}
	}
}

func TestSpanText(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0-10.255.255.255": "10.0.0.0/8", "10.0.0.1-10.0.0.1": "10.0.0.1", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
		"10.0.0.0-10.0.0.2": "10.0.0.0-10.0.0.2", "::ffff:10.0.0.0/104": "::ffff:a00:0/104", "10.0.0.7/24": "10.0.0.0/24",
		"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "::/0", "fd00::1/128": "fd00::1",
	} {
		got, err := parseSpan(text)
		if err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-", "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "10.0.0.0/33", "fe80::1%eth0", "a", "10.0.0.1-10.0.0.2-10.0.0.3"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q reads as %s", text, got)
		}
	}
}

func FuzzParseSpan(f *testing.F) {
	f.Add("10.0.0.0/8")
	f.Add("::1-::5")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSpan(text)
		if err != nil {
			return
		}
		if again, err := parseSpan(s.String()); err != nil || again != s {
			t.Errorf("%q reads as %q, and that as %v, %v", text, s, again, err)
		}
	})
}

func FuzzDisjoint(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 8, 1, 10, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 2}, uint32(0x0a010000))
	f.Fuzz(func(t *testing.T, data []byte, at uint32) {
		var bindings []binding
		for ; len(data) >= 6 && len(bindings) < 40; data = data[6:] {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte(data)), int(data[4])%33)
			bindings = append(bindings, binding{p, []string{"", "a", "b"}[data[5]%3]})
		}
		pieces := disjoint(bindings)
		checkPieces(t, pieces)
		for _, a := range append(edges(prefixesOf(bindings)), netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)})) {
			if got, want := valueAt(pieces, a), longest(bindings, a); got != want {
				t.Fatalf("%v: %s is %q, want %q", bindings, a, got, want)
			}
		}
	})
}
