package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/egress/nat"
)

// filterWalk walks a rendered packet filter fast: its maps are read once.
type filterWalk struct {
	rules   nat.Ruleset
	spans   map[string][]spanValue
	markOf  map[string]uint32
	buckets map[string][]string
}

type spanValue struct {
	lo, hi netip.Addr
	value  string
}

func newFilterWalk(r nat.Ruleset) *filterWalk {
	f := &filterWalk{rules: r, spans: map[string][]spanValue{}, markOf: map[string]uint32{}, buckets: map[string][]string{}}
	for name, s := range r.Sets {
		if s.Interval {
			f.spans[name] = readSpans(s)
		}
	}
	for name, c := range r.Chains {
		for _, l := range c.Lines {
			var keep, set uint32
			if n, _ := fmt.Sscanf(l.Text, "meta mark set meta mark & 0x%08x | 0x%08x", &keep, &set); n == 2 {
				f.markOf[name] = set
			}
		}
	}
	return f
}

func readSpans(s nat.Set) []spanValue {
	var out []spanValue
	for key, value := range s.Elements {
		v := spanValue{value: value}
		if lo, hi, ok := strings.Cut(key, "-"); ok {
			v.lo, v.hi = netip.MustParseAddr(lo), netip.MustParseAddr(hi)
		} else if p, err := netip.ParsePrefix(key); err == nil {
			v.lo, v.hi = p.Addr(), lastOf(p)
		} else {
			v.lo = netip.MustParseAddr(key)
			v.hi = v.lo
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b spanValue) int { return a.lo.Compare(b.lo) })
	return out
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (f *filterWalk) find(set string, a netip.Addr) (string, bool) {
	spans := f.spans[set]
	i, exact := slices.BinarySearchFunc(spans, a, func(s spanValue, a netip.Addr) int { return s.lo.Compare(a) })
	if !exact {
		i--
	}
	if i < 0 || spans[i].hi.Less(a) {
		return "", false
	}
	return spans[i].value, true
}

// classify follows a first packet to its mark.
func (f *filterWalk) classify(src, dst netip.Addr) (uint32, Outcome) {
	digit := "4"
	if dst.Is6() {
		digit = "6"
	}
	if _, exempt := f.find("exempt"+digit, dst); exempt {
		return 0, OutcomeNormal
	}
	to, ok := f.find("clients"+digit, src)
	if !ok {
		return 0, OutcomeNormal
	}
	chain := to[strings.IndexByte(to, ' ')+1:]
	if policy, ok := strings.CutPrefix(chain, "policy_"); ok {
		if to, ok = f.find("dst"+digit+"_"+policy, dst); !ok {
			return 0, OutcomeNormal
		}
		chain = strings.TrimPrefix(to, "goto ")
	}
	if spread, ok := strings.CutPrefix(chain, "spread_"); ok {
		chain = f.choose(spread, src)
	}
	switch chain {
	case "decide_drop", "decide_unmatched":
		return 0, OutcomeDrop
	case "decide_reject":
		return 0, OutcomeReject
	}
	mark, ok := f.markOf[chain]
	switch {
	case !ok:
		return 0, OutcomeNormal // an exit in fallback
	case mark == nat.EgressMark|4:
		return mark, OutcomeDrop // an exit that takes no new flows
	case mark == nat.EgressMark|5:
		return mark, OutcomeReject
	}
	return mark, OutcomeNetwork
}

// choose finds the exit of a client in a spread.
func (f *filterWalk) choose(spread string, src netip.Addr) string {
	if s, ok := f.rules.Sets["buckets_"+spread]; ok {
		return strings.TrimPrefix(s.Elements[fmt.Sprint(nat.ClientBucket(src, len(s.Elements)))], "goto ")
	}
	lines := f.rules.Chains["choose_"+spread].Lines
	return strings.TrimPrefix(lines[len(lines)-1].Text, "goto ")
}

// translates says whether the pool of a mark has addresses of a family.
func (f *filterWalk) translates(mark uint32, v6 bool) bool {
	chain := strings.TrimPrefix(f.rules.Sets["pools"].Elements[fmt.Sprintf("0x%08x", nat.EgressMark|mark&nat.PoolMask)], "goto ")
	want := "snat ip to"
	if v6 {
		want = "snat ip6 to"
	}
	return slices.ContainsFunc(f.rules.Chains[chain].Lines, func(l nat.Line) bool { return strings.Contains(l.Text, want) })
}

// check compares this walk with that of the packet filter's own package, which
// knows nothing of the names of chains.
func (f *filterWalk) check(t *testing.T, src, dst netip.Addr) {
	t.Helper()
	mark, outcome := f.classify(src, dst)
	trace, err := f.rules.Classify(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	same := map[nat.Decision]Outcome{nat.Normal: OutcomeNormal, nat.Exits: OutcomeNetwork, nat.Dropped: OutcomeDrop,
		nat.Unmatched: OutcomeDrop, nat.Rejected: OutcomeReject}[trace.Decision] == outcome
	if !same || trace.Decision == nat.Exits && trace.Mark != mark {
		t.Fatalf("%s to %s: mark %#x (%s), Classify says %#x (%s)", src, dst, mark, outcome, trace.Mark, trace.Decision)
	}
}
