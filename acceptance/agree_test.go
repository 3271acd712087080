package acceptance

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// TestKernelAgreesWithPolicies compares, over random policies and 10,000 random
// pairs of a client and a destination, what the configuration says with what the
// kernel does: its packet filter as it lists it, and its answer for a packet
// with the mark that follows.
func TestKernelAgreesWithPolicies(t *testing.T) {
	f := newFan(t, 1)
	c := &chance{Rand: rand.New(rand.NewPCG(1, 2))}
	spec := c.config(false)
	f.start(yaml(spec))
	f.wait(map[string]string{"red": "Up", "blue": "Up"})
	f.agree(t, c, spec, 5000)
	spec = c.config(true)
	f.reload(t, yaml(spec))
	f.agree(t, c, spec, 5000)
}

// kernelView is the kernel, asked directly.
type kernelView struct {
	routes *vrf.Kernel
	table  *nat.Table
	rules  nat.Ruleset
	// tables are each network's own table, paths those of its paths with their next
	// hops.
	tables map[string]vrf.TableID
	paths  map[string]map[vrf.TableID][]netip.Addr
}

// kernel opens the gateway's kernel and reads the packet filter. The texts of the
// rules, which the kernel's listing does not have, follow from the configuration;
// a rule that is not among them is an error when a packet meets it.
func (f *fan) kernel(t *testing.T, spec *egress.Spec) *kernelView {
	t.Helper()
	k := &kernelView{tables: map[string]vrf.TableID{}, paths: map[string]map[vrf.TableID][]netip.Addr{}}
	err := f.Gateway.Do(func() (err error) {
		log := slog.New(slog.DiscardHandler)
		if k.routes, err = vrf.Open(spec.Settings.Ownership.Owner(), log); err != nil {
			return err
		}
		if k.table, err = nat.Open(log); err != nil {
			return err
		}
		have, err := k.routes.Snapshot(t.Context())
		if err != nil {
			return err
		}
		st := egress.Observe(have, spec.Settings.Ownership)
		st.Flowtables = true
		want := egress.Resolve(spec, st)
		rules, err := k.table.Snapshot(t.Context())
		k.rules = rules.WithTexts(nat.Render(want.NAT))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.routes.Close() })
	s, err := f.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Networks {
		k.tables[n.Name], k.paths[n.Name] = vrf.TableID(n.Table), map[vrf.TableID][]netip.Addr{}
		for _, p := range n.Paths {
			k.paths[n.Name][vrf.TableID(p.Table)] = p.NextHops
		}
	}
	return k
}

func (f *fan) agree(t *testing.T, c *chance, spec *egress.Spec, pairs int) {
	t.Helper()
	f.empty("before the comparison")
	k := f.kernel(t, spec)
	begin := time.Now()
	var asking time.Duration // what nft alone takes
	outcomes, wrong := map[string]int{}, 0
	used := map[string]map[netip.Addr]bool{} // gateways by client and rule
	for i := range pairs {
		src, dst := c.pair(spec)
		want := decideSlowly(spec, src, dst)
		outcome, err := k.compare(t, spec, want, src, dst, uint16(c.IntN(65536)), used)
		if err == nil && i%250 == 0 {
			asked := time.Now()
			err = f.element(t, k, want, src)
			asking += time.Since(asked)
		}
		outcomes[outcome]++
		if err != nil {
			if wrong++; wrong <= 10 {
				t.Errorf("%s to %s: %v", src, dst, err)
			}
		}
	}
	rules, paths := 0, 0
	for _, p := range spec.Policies {
		rules += len(p.Rules)
	}
	for _, p := range k.paths {
		paths += len(p)
	}
	t.Logf("%d policies, %d rules, %d paths: %d pairs in %.1f s (%.1f s of them for nft), %d wrong: %v", len(spec.Policies), rules, paths, pairs,
		time.Since(begin).Seconds(), asking.Seconds(), wrong, outcomes)
	for _, outcome := range []string{"normal", "drop", "reject", "exit", "unreachable"} {
		if outcomes[outcome] < pairs/200 {
			t.Errorf("only %d pairs are %s: little is proved", outcomes[outcome], outcome)
		}
	}
}

// compare follows a pair through the kernel, and says how it ended.
func (k *kernelView) compare(t *testing.T, spec *egress.Spec, want verdict, src, dst netip.Addr, port uint16, used map[string]map[netip.Addr]bool) (string, error) {
	trace, err := k.rules.Classify(src, dst)
	if err != nil {
		return want.outcome, err
	}
	got := string(trace.Decision)
	if got == string(nat.Unmatched) {
		got = "drop"
	}
	if got != want.outcome {
		return want.outcome, fmt.Errorf("the packet filter says %s, want %s by policy %q rule %+v\n%s", got, want.outcome, want.policy, want.rule, strings.Join(trace.Steps, "\n"))
	}
	if got == "drop" || got == "reject" {
		return got, nil
	}
	if got == "normal" && port%4 > 0 {
		return got, nil // they are many, and their ways few
	}
	answer, err := k.routes.RouteGet(t.Context(), vrf.RouteQuery{Src: src, Dst: dst, Mark: vrf.Mark(trace.Mark), Interface: "eth0", Proto: 17, SrcPort: port, DstPort: 443})
	if err != nil {
		return got, err
	}
	if got == "normal" {
		if answer.Device == "eth1" || answer.Device == "eth2" {
			return got, fmt.Errorf("routed normally, it goes by %s: %+v", answer.Device, answer)
		}
		return got, nil
	}
	if len(want.gateways) == 0 {
		if answer.Type != vrf.Unreachable {
			return "unreachable", fmt.Errorf("the kernel takes %+v, and there is no route", answer)
		}
		return "unreachable", nil
	}
	return got, k.way(spec, want, trace, answer, src, used)
}

// way compares the table, the gateway, and the address.
func (k *kernelView) way(spec *egress.Spec, want verdict, trace nat.Trace, answer vrf.RouteAnswer, src netip.Addr, used map[string]map[netip.Addr]bool) error {
	if answer.Type != vrf.Unicast || !slices.Contains(want.gateways, answer.Gateway) {
		return fmt.Errorf("the kernel takes %+v, want one of %v (mark %#x)", answer, want.gateways, trace.Mark)
	}
	if port := map[string]string{"red": "eth1", "blue": "eth2"}[want.rule.Network]; answer.Device != port {
		return fmt.Errorf("the kernel takes %s, want %s", answer.Device, port)
	}
	own, paths := k.tables[want.rule.Network], k.paths[want.rule.Network]
	hops, isPath := paths[answer.Table]
	plain := len(want.rule.NextHops) == 0 && want.bound == 0
	switch {
	case src.Is6():
		// The kernel may name another table with a route to the same object.
	case plain && answer.Table != own:
		return fmt.Errorf("table %d, want %d", answer.Table, own)
	case len(want.rule.NextHops) > 0 && !isPath:
		return fmt.Errorf("table %d, want that of a path: %v", answer.Table, paths)
	case len(want.rule.NextHops) > 0 && !slices.Contains(hops, answer.Gateway):
		return fmt.Errorf("%s is not in path %d: %v", answer.Gateway, answer.Table, hops)
	}
	pool := slices.IndexFunc(spec.Pools, func(p egress.Pool) bool { return p.Name == want.rule.Pool })
	if !contains(spec.Pools[pool].Prefixes, trace.Address) {
		return fmt.Errorf("translated to %s, want an address of %s", trace.Address, want.rule.Pool)
	}
	key := fmt.Sprint(src, " ", want.policy, " ", want.rule.Destination)
	if used[key] == nil {
		used[key] = map[netip.Addr]bool{}
	}
	used[key][answer.Gateway] = true
	if want.bound > 0 && len(want.rule.NextHops) > 0 && len(used[key]) > want.bound {
		return fmt.Errorf("the client uses %d next hops for one rule, want at most %d", len(used[key]), want.bound)
	}
	return nil
}

// element asks the kernel itself for a client's policy, instead of its listing.
func (f *fan) element(t *testing.T, k *kernelView, want verdict, src netip.Addr) error {
	set := "clients4"
	if src.Is6() {
		set = "clients6"
	}
	var value string
	var found bool
	err := f.Gateway.Do(func() (err error) {
		value, found, err = k.table.Lookup(t.Context(), set, src.String())
		return err
	})
	if err != nil {
		return err
	}
	if want.policy != "" && value != "jump policy_"+want.policy {
		return fmt.Errorf("the element of %s is %q (found %t), want policy %s", src, value, found, want.policy)
	}
	return nil
}
