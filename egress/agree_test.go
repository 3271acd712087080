package egress

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// verdictOf is what becomes of a flow: the outcome and, for one that is
// forwarded by a network, where and by whom.
type verdictOf struct {
	outcome Outcome
	network string
	pool    string
	// hops are the next hops that may carry it; of them bound (0 is all) must.
	hops  []netip.Addr
	bound int
}

// reference is the slow evaluator: it looks through everything, with nothing
// prepared.
func reference(spec *Spec, st State, src, dst netip.Addr) verdictOf {
	within := func(ps []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if within(spec.Clients.Prefixes, dst) || within(nat.NeverClassified(), dst) || !within(spec.Clients.Prefixes, src) {
		return verdictOf{outcome: OutcomeNormal}
	}
	var policy *Policy
	longest := -1
	for i := range spec.Policies {
		for _, c := range spec.Policies[i].Clients {
			if c.Contains(src) && c.Bits() > longest {
				policy, longest = &spec.Policies[i], c.Bits()
			}
		}
	}
	switch {
	case policy == nil && spec.Clients.DropUnmatched, policy != nil && policy.Missing:
		return verdictOf{outcome: OutcomeDrop}
	case policy == nil:
		return verdictOf{outcome: OutcomeNormal}
	}
	var rule *Rule
	for i := range policy.Rules {
		r := &policy.Rules[i]
		if r.Destination.Contains(dst) && (rule == nil || r.Destination.Bits() > rule.Destination.Bits()) {
			rule = r
		}
	}
	switch {
	case rule == nil || rule.Action == ActionSkip:
		return verdictOf{outcome: OutcomeNormal}
	case rule.Action == ActionDrop:
		return verdictOf{outcome: OutcomeDrop}
	case rule.Action == ActionReject:
		return verdictOf{outcome: OutcomeReject}
	}
	return referenceNetwork(spec, st, rule, dst)
}

func referenceNetwork(spec *Spec, st State, rule *Rule, dst netip.Addr) verdictOf {
	var n Network
	for _, o := range spec.Networks {
		if o.Name == rule.Network {
			n = o
		}
	}
	works := func(h NextHop) bool {
		return st.Links[n.Ports[0].Name].Carrier && st.Verdicts[n.NextHopProbes[0].Name+"@"+h.Address.String()] == probes.Up
	}
	hops, some := rule.NextHops, false
	if len(hops) == 0 {
		longest := -1
		for _, s := range n.StaticRoutes {
			if s.Prefix.Contains(dst) && s.Prefix.Bits() > longest {
				hops, longest = s.NextHops, s.Prefix.Bits()
			}
		}
	}
	for _, s := range n.StaticRoutes {
		some = some || slices.ContainsFunc(s.NextHops, works)
	}
	for _, p := range spec.Policies {
		for _, r := range p.Rules {
			some = some || r.Network == n.Name && slices.ContainsFunc(r.NextHops, works)
		}
	}
	out := verdictOf{outcome: OutcomeNetwork, network: n.Name, pool: rule.Pool, bound: rule.MaxNextHops}
	if out.bound == 0 {
		out.bound = n.MaxNextHops
	}
	best := -1
	for _, h := range hops {
		if works(h) {
			best = max(best, int(h.Preference))
		}
	}
	for _, h := range hops {
		if works(h) && int(h.Preference) == best {
			out.hops = append(out.hops, h.Address)
		}
	}
	// A set of next hops of the rule's own that has none left falls back by itself;
	// routes do when the whole network has none.
	named := len(rule.NextHops) > 0
	stage := st.Drains[n.Name].Stage
	closed := stage == drain.Refusing || stage == drain.Withdrawn
	gone := !some || named && len(out.hops) == 0
	switch {
	case (gone || closed) && n.OnNoNextHop == NoNextHopFallback:
		return verdictOf{outcome: OutcomeNormal}
	case closed && n.OnNoNextHop == NoNextHopReject:
		return verdictOf{outcome: OutcomeReject}
	case closed:
		return verdictOf{outcome: OutcomeDrop}
	case len(out.hops) == 0:
		return verdictOf{outcome: OutcomeDrop}
	}
	var p Pool
	for _, o := range spec.Pools {
		if o.Name == rule.Pool {
			p = o
		}
	}
	if !slices.ContainsFunc(p.Prefixes, func(x netip.Prefix) bool { return x.Addr().Is6() == dst.Is6() }) {
		return verdictOf{outcome: OutcomeDrop}
	}
	return out
}

// compiledWorld evaluates what Resolve made: the rendered packet filter, rules,
// routes and groups, as the kernel does.
type compiledWorld struct {
	t       *testing.T
	rules   [2][]vrf.Rule
	routes  map[vrf.TableID][]vrf.Route
	members map[vrf.NextHopID][]netip.Addr
	exits   map[uint32]nat.Exit
	filter  *filterWalk
}

func newCompiledWorld(t *testing.T, d *Desired) *compiledWorld {
	w := &compiledWorld{t: t, routes: map[vrf.TableID][]vrf.Route{}, members: map[vrf.NextHopID][]netip.Addr{}, exits: map[uint32]nat.Exit{},
		filter: newFilterWalk(nat.Render(d.NAT))}
	for _, r := range d.Kernel.Rules {
		w.rules[family(r.IPv6)] = append(w.rules[family(r.IPv6)], r)
	}
	for i := range w.rules {
		slices.SortStableFunc(w.rules[i], func(a, b vrf.Rule) int { return int(a.Priority) - int(b.Priority) })
	}
	for _, r := range d.Kernel.Routes {
		w.routes[r.Table] = append(w.routes[r.Table], r)
	}
	hops := map[vrf.NextHopID]vrf.NextHop{}
	for _, h := range d.Kernel.NextHops {
		hops[h.ID] = h
	}
	for _, g := range d.Kernel.Groups {
		for _, m := range g.Members {
			if !hops[m.ID].Blackhole {
				w.members[g.ID] = append(w.members[g.ID], hops[m.ID].Gateway)
			}
		}
	}
	for _, e := range d.NAT.Exits {
		w.exits[e.Mark] = e
	}
	return w
}

func (w *compiledWorld) evaluate(src, dst netip.Addr) verdictOf {
	mark, outcome := w.filter.classify(src, dst)
	if outcome != OutcomeNetwork {
		return verdictOf{outcome: outcome}
	}
	e := w.exits[mark]
	v := verdictOf{outcome: OutcomeDrop, network: e.Network, pool: e.Pool}
	table, blocked := w.lookupRule(vrf.Mark(mark), dst.Is6())
	if blocked || !w.filter.translates(mark, dst.Is6()) {
		return v
	}
	var best *vrf.Route
	for i := range w.routes[table] {
		r := &w.routes[table][i]
		if r.Prefix.Contains(dst) && (best == nil || r.Prefix.Bits() > best.Prefix.Bits() || r.Prefix.Bits() == best.Prefix.Bits() && r.Metric < best.Metric) {
			best = r
		}
	}
	if best == nil {
		w.t.Fatalf("table %d has no end for %s", table, dst)
	}
	if best.Type == vrf.Unicast && len(w.members[best.NextHop]) > 0 {
		v.outcome, v.hops = OutcomeNetwork, w.members[best.NextHop]
	}
	return v
}

// lookupRule walks the rules of a family.
func (w *compiledWorld) lookupRule(mark vrf.Mark, v6 bool) (vrf.TableID, bool) {
	rules := w.rules[family(v6)]
	for i := 0; i < len(rules); i++ {
		r := rules[i]
		if (mark^r.Mark)&r.Mask != 0 {
			continue
		}
		switch r.Action {
		case vrf.RuleLookup:
			return r.Table, false
		case vrf.RuleGoto:
			i = slices.IndexFunc(rules, func(o vrf.Rule) bool { return o.Priority == r.Target }) - 1
		default:
			return 0, true
		}
	}
	w.t.Fatalf("mark %#x meets no rule", mark)
	return 0, true
}

// disagrees says how what was compiled differs from the reference.
func disagrees(want, got verdictOf) string {
	if want.outcome != got.outcome {
		return fmt.Sprintf("outcome %s, want %s", got.outcome, want.outcome)
	}
	if want.outcome != OutcomeNetwork {
		return ""
	}
	if want.network != got.network || want.pool != got.pool {
		return fmt.Sprintf("%s as %s, want %s as %s", got.network, got.pool, want.network, want.pool)
	}
	count := len(want.hops)
	if want.bound > 0 {
		count = min(count, want.bound)
	}
	if len(got.hops) != count {
		return fmt.Sprintf("next hops %v, want %d of %v", got.hops, count, want.hops)
	}
	for _, h := range got.hops {
		if !slices.Contains(want.hops, h) {
			return fmt.Sprintf("next hop %s is none of %v", h, want.hops)
		}
	}
	return ""
}

// TestCompiledAgreesWithReference asks both about a million flows over random
// configurations. With -short, about a tenth of that.
func TestCompiledAgreesWithReference(t *testing.T) {
	specs, flows := 250, 4001
	if testing.Short() {
		specs = 25
	}
	outcomes := map[Outcome]int{}
	bounded := 0
	for seed := range specs {
		rng := rand.New(rand.NewPCG(uint64(seed), 99))
		spec, st := randomSpec(rng)
		d := Resolve(spec, st)
		w := newCompiledWorld(t, &d)
		decider := newDecider(spec, nil)
		undrained := st
		undrained.Drains = nil
		sources, destinations := interesting(spec)
		for i := range flows {
			src := randomAddr(rng, sources[rng.IntN(len(sources))])
			dst := randomAddr(rng, destinations[rng.IntN(len(destinations))])
			for src.Is4() != dst.Is4() {
				dst = randomAddr(rng, destinations[rng.IntN(len(destinations))])
			}
			want, got := reference(spec, st, src, dst), w.evaluate(src, dst)
			if text := disagrees(want, got); text != "" {
				t.Fatalf("seed %d: %s to %s: %s", seed, src, dst, text)
			}
			outcomes[want.outcome]++
			if want.bound > 0 && len(want.hops) > want.bound {
				bounded++
			}
			if i%100 == 0 {
				w.filter.check(t, src, dst)
				want := reference(spec, undrained, src, dst) // the decider knows nothing of states
				if x := decider.decide(src, dst); x.Outcome == OutcomeReject != (want.outcome == OutcomeReject) {
					t.Fatalf("seed %d: %s to %s: decided %s, want %s", seed, src, dst, x.Outcome, want.outcome)
				}
			}
		}
	}
	t.Log(outcomes, "bounded:", bounded)
	for _, o := range []Outcome{OutcomeNormal, OutcomeNetwork, OutcomeDrop, OutcomeReject} {
		if outcomes[o] < specs*flows/100 {
			t.Errorf("only %d flows are %s", outcomes[o], o)
		}
	}
	if bounded < specs*flows/100 {
		t.Errorf("only %d flows have more next hops than they may use", bounded)
	}
}

// interesting are the prefixes at whose edges a configuration decides.
func interesting(spec *Spec) (sources, destinations []netip.Prefix) {
	sources = append(sources, spec.Clients.Prefixes...)
	destinations = append(destinations, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), spec.Clients.Prefixes[0])
	for _, p := range spec.Policies {
		sources = append(append(sources, p.Clients...), p.Clients...)
		for _, r := range p.Rules {
			destinations = append(destinations, r.Destination)
		}
	}
	for _, n := range spec.Networks {
		for _, s := range n.StaticRoutes {
			destinations = append(destinations, s.Prefix)
		}
	}
	return sources, destinations
}
