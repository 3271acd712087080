package egress

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// askedWorld is a kernel that does what was compiled.
type askedWorld struct{ *compiledWorld }

func (w askedWorld) RouteGet(_ context.Context, q vrf.RouteQuery) (vrf.RouteAnswer, error) {
	table, blocked := w.lookupRule(q.Mark, q.Dst.Is6())
	if blocked {
		return vrf.RouteAnswer{Type: vrf.Blackhole}, nil
	}
	var best vrf.Route
	for _, r := range w.routes[table] {
		if r.Prefix.Contains(q.Dst) && (best.Type == 0 || r.Prefix.Bits() > best.Prefix.Bits() || r.Prefix.Bits() == best.Prefix.Bits() && r.Metric < best.Metric) {
			best = r
		}
	}
	members := w.members[best.NextHop]
	if best.Type != vrf.Unicast || len(members) == 0 {
		return vrf.RouteAnswer{Type: vrf.Unreachable}, nil
	}
	return vrf.RouteAnswer{Table: table, Type: vrf.Unicast, Gateway: members[int(q.SrcPort)%len(members)], Device: "eth1", NextHop: best.NextHop}, nil
}

// TestExplanationsAgree explains random flows over random configurations: the
// result is the reference's, and a kernel that does what was compiled agrees.
func TestExplanationsAgree(t *testing.T) {
	dropped := 0
	for seed := range 40 {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		spec, st := randomSpec(rng)
		d := Resolve(spec, st)
		rules := nat.Render(d.NAT)
		kernel := askedWorld{newCompiledWorld(t, &d)}
		sources, destinations := interesting(spec)
		for range 60 {
			flow := Flow{Src: randomAddr(rng, sources[rng.IntN(len(sources))]), Dst: randomAddr(rng, destinations[rng.IntN(len(destinations))]),
				Proto: 17, SrcPort: uint16(rng.IntN(60000)), DstPort: 53}
			if flow.Src.Is4() != flow.Dst.Is4() {
				continue
			}
			e := Explain(spec, st, &d, flow)
			if err := e.Compare(t.Context(), spec, kernel, rules, rules); err != nil {
				t.Fatal(err)
			}
			want := reference(spec, st, flow.Src, flow.Dst)
			if forwarded := want.outcome == OutcomeNormal || want.outcome == OutcomeNetwork; forwarded == e.Dropped {
				t.Fatalf("seed %d: %s to %s: dropped %v, the reference says %s\n%s", seed, flow.Src, flow.Dst, e.Dropped, want.outcome, text(e))
			}
			if len(e.Disagreements) > 0 {
				t.Fatalf("seed %d: %s to %s: %v\n%s", seed, flow.Src, flow.Dst, e.Disagreements, text(e))
			}
			if e.Dropped {
				dropped++
			}
		}
	}
	if dropped < 100 {
		t.Errorf("only %d flows are dropped", dropped)
	}
}

func text(e *Explanation) string {
	var b strings.Builder
	for _, s := range e.Steps {
		fmt.Fprintf(&b, "%s: %s\n", s.What, s.Text)
	}
	return b.String()
}

// TestExplanationText is what a person reads.
func TestExplanationText(t *testing.T) {
	m := newMachine(t, fourHops())
	m.verdict("172.16.0.12", probes.Down)
	m.step()
	e := Explain(m.spec, m.st, &m.d, Flow{Src: addrOf("10.244.1.7"), Dst: addrOf("192.0.2.1")})
	got := text(e)
	for _, want := range []string{
		"client: 10.244.1.7 is a client of policy team-a by 10.244.1.0/24\n",
		"rule: 0.0.0.0/0 to network red as red-pool by 172.16.0.11, 172.16.0.12, 172.16.0.13, 172.16.0.14, at most 2 next hops for a client\n",
		"decision: network: the rule names a network\n",
		" of 64\n",
		"next hop: 172.16.0.12 on eth1: not usable: probe red/nh@172.16.0.12 is down\n",
		"network: red is up\n",
		"pool: red-pool: 198.51.100.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if e.Dropped || e.Outcome != OutcomeNetwork {
		t.Errorf("outcome %s, dropped %v", e.Outcome, e.Dropped)
	}
}

// TestDisagreementIsReported: a packet filter and routes that somebody changed.
func TestDisagreementIsReported(t *testing.T) {
	m := newMachine(t, fourHops())
	flow := Flow{Src: addrOf("10.244.1.7"), Dst: addrOf("192.0.2.1"), Proto: 6, DstPort: 443}
	rules := nat.Render(m.d.NAT)
	world := newCompiledWorld(t, &m.d)
	compare := func(have nat.Ruleset, w *compiledWorld) *Explanation {
		e := Explain(m.spec, m.st, &m.d, flow)
		if err := e.Compare(t.Context(), m.spec, askedWorld{w}, have, rules); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := compare(rules, world); len(e.Disagreements) > 0 {
		t.Fatalf("nothing was changed, but %v", e.Disagreements)
	}
	without := rules.Clone()
	for key := range without.Sets["clients4"].Elements {
		delete(without.Sets["clients4"].Elements, key)
	}
	if e := compare(without, world); len(e.Disagreements) != 1 || !strings.Contains(e.Disagreements[0], "the packet filter says normal") {
		t.Errorf("without its clients: %v", e.Disagreements)
	}
	if e := compare(nat.Ruleset{}, world); len(e.Disagreements) != 1 {
		t.Errorf("without a packet filter: %v", e.Disagreements)
	}
	elsewhere := newCompiledWorld(t, &m.d)
	for id := range elsewhere.members {
		elsewhere.members[id] = []netip.Addr{addrOf("172.16.0.99")}
	}
	if e := compare(rules, elsewhere); len(e.Disagreements) != 1 || !strings.Contains(e.Disagreements[0], "the kernel takes next hop 172.16.0.99") {
		t.Errorf("with another next hop: %v", e.Disagreements)
	}
	clear(elsewhere.members)
	if e := compare(rules, elsewhere); len(e.Disagreements) != 1 || !e.Dropped {
		t.Errorf("without next hops: %v, dropped %v", e.Disagreements, e.Dropped)
	}
}
