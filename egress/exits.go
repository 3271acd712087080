package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// compiled is what follows from a Spec alone: done once, since a Spec may have
// 100,000 rules and a round must not walk through them.
type compiled struct {
	spec  *Spec
	pools map[string][]Pool // by network
	// poolIDs number the pools within a mark.
	poolIDs map[string]uint16
	// sets are the hop sets of each network, sorted by key, those that are more
	// than the network itself; uses says which pools each is used with.
	sets map[string][]*hopSet
	uses map[string]map[string]bool
	// policies are the rules for the packet filter. They name the exits of
	// networks and the spreads of hop sets, and so do not change with health.
	policies []nat.Policy
}

func compile(spec *Spec) *compiled {
	c := &compiled{spec: spec, pools: poolsByNetwork(spec.Pools), sets: map[string][]*hopSet{}, uses: map[string]map[string]bool{}}
	names := make([]string, 0, len(spec.Pools))
	for _, p := range spec.Pools {
		names = append(names, p.Name)
	}
	c.poolIDs = assignIndexes(names, nil)
	bounds := make(map[string]int, len(spec.Networks))
	for _, n := range spec.Networks {
		bounds[n.Name] = n.MaxNextHops
	}
	c.policies = make([]nat.Policy, 0, len(spec.Policies))
	for _, p := range spec.Policies {
		c.policies = append(c.policies, c.policy(p, bounds))
	}
	for _, sets := range c.sets {
		slices.SortFunc(sets, func(a, b *hopSet) int { return cmp.Compare(a.key(), b.key()) })
	}
	return c
}

func (c *compiled) policy(p Policy, bounds map[string]int) nat.Policy {
	out := nat.Policy{Name: p.Name, Clients: p.Clients, Rules: make([]nat.Rule, 0, len(p.Rules))}
	if p.Missing {
		for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
			out.Rules = append(out.Rules, nat.Rule{Destination: all, Action: nat.Drop})
		}
		return out
	}
	for _, rule := range p.Rules {
		nr := nat.Rule{Destination: rule.Destination}
		switch rule.Action {
		case ActionNetwork:
			nr.Action, nr.Exit = nat.ToExit, c.target(rule, bounds[rule.Network])
		case ActionDrop:
			nr.Action = nat.Drop
		case ActionReject:
			nr.Action = nat.Reject
		case ActionSkip:
			nr.Action = nat.Skip
		}
		out.Rules = append(out.Rules, nr)
	}
	return out
}

// target names where a rule with a network goes, and notes the hop set.
func (c *compiled) target(rule Rule, bound int) string {
	set := setOf(rule, bound)
	if set.plain() {
		return exitName(rule.Network, rule.Pool)
	}
	key := set.key()
	if c.uses[key] == nil {
		c.uses[key] = map[string]bool{}
		c.sets[set.network] = append(c.sets[set.network], set)
	}
	c.uses[key][rule.Pool] = true
	return spreadName(set, rule.Pool)
}

func exitName(network, pool string) string { return network + "." + pool }

func spreadName(set *hopSet, pool string) string {
	return fmt.Sprintf("%s.%s.%s", set.network, set.id(), pool)
}

func pathExitName(network string, number uint16, pool string) string {
	return fmt.Sprintf("%s.%d.%s", network, number, pool)
}

// exitDecision is an exit for the packet filter: a mark with a pool.
type exitDecision struct {
	name, network, pool string
	mark                vrf.Mark
	fallback            bool
	refuse              nat.Action
}

// spreadDecision is a spread for the packet filter.
type spreadDecision struct {
	name  string
	exits []string
}

// wayOut adds a network's exits and spreads. Every path can be combined with
// every pool of the network: a rule may have had another one when a flow began.
func (r *resolver) wayOut(t *table, sets map[string]setPaths) {
	fallback := t.n.OnNoNextHop == NoNextHopFallback
	away, refuse := !t.dec.Up || t.dec.Drain.Refuses(), t.refusal()
	for _, pool := range r.pools[t.n.Name] {
		id := r.poolIDs[pool.Name]
		r.exits = append(r.exits, exitDecision{exitName(t.n.Name, pool.Name), t.n.Name, pool.Name,
			exitMark(t.dec.Index, id), fallback && away, refuse})
		for _, p := range t.all {
			e := exitDecision{name: pathExitName(t.n.Name, p.number, pool.Name), network: t.n.Name, pool: pool.Name, refuse: refuse,
				fallback: fallback && (away || p.set != nil && p.set.named != nil && !p.usable)}
			if p.number != 0 {
				e.mark = exitMark(p.number, id)
			}
			r.exits = append(r.exits, e)
		}
	}
	for _, set := range r.sets[t.n.Name] {
		paths := sets[set.key()]
		for _, pool := range r.pools[t.n.Name] {
			if !r.uses[set.key()][pool.Name] {
				continue
			}
			s := spreadDecision{name: spreadName(set, pool.Name)}
			if paths.network {
				s.exits = []string{exitName(t.n.Name, pool.Name)}
			}
			for _, p := range paths.buckets {
				s.exits = append(s.exits, pathExitName(t.n.Name, p.number, pool.Name))
			}
			r.spreads = append(r.spreads, s)
		}
	}
}

// refusal is what becomes of new flows while the network is drained: what
// becomes of all while no next hop works. (fallback is an exit's own.)
func (t *table) refusal() nat.Action {
	switch {
	case !t.dec.Drain.Refuses() || t.n.OnNoNextHop == NoNextHopFallback:
		return nat.Skip
	case t.n.OnNoNextHop == NoNextHopReject:
		return nat.Reject
	}
	return nat.Drop
}

// nat is the packet filter's configuration.
func (r *resolver) nat(d *Desired) nat.Config {
	c := nat.Config{ClientInterfaces: r.spec.Clients.Interfaces, ClientPrefixes: r.spec.Clients.Prefixes,
		ReturnMark: uint32(markReturn), DropUnmatched: r.spec.Clients.DropUnmatched, Silent: len(r.spec.Clients.Returns) > 0, Policies: r.policies,
		FlowDevices: r.flowDevices()}
	for _, n := range r.spec.Networks {
		f := nat.Network{Name: n.Name, Device: n.Name, Zone: d.network(n.Name).Zone}
		for _, p := range n.Ports {
			f.Ports = append(f.Ports, p.Name)
			f.Own = append(f.Own, r.ownAddresses(p)...)
		}
		for _, p := range r.pools[n.Name] {
			f.Sources = append(f.Sources, p.Prefixes...)
			v4, v6 := poolAddresses(p.Prefixes)
			c.Pools = append(c.Pools, nat.Pool{Name: p.Name, Network: n.Name, ID: r.poolIDs[p.Name], Pool4: v4, Pool6: v6, PerFlow: p.PerFlow})
		}
		c.Networks = append(c.Networks, f)
	}
	for _, e := range r.exits {
		c.Exits = append(c.Exits, nat.Exit{Name: e.name, Network: e.network, Pool: e.pool, Mark: uint32(e.mark), Fallback: e.fallback, Refuse: e.refuse})
	}
	for _, s := range r.spreads {
		c.Spreads = append(c.Spreads, nat.Spread{Name: s.name, Exits: s.exits})
	}
	return c
}

// flowDevices are the devices that established flows are offloaded between:
// those that exist, since one that does not would fail the whole transaction.
func (r *resolver) flowDevices() []string {
	if !r.spec.Settings.Flowtable || !r.st.Flowtables {
		return nil
	}
	var out []string
	add := func(name string) {
		if _, ok := r.st.Links[name]; ok {
			out = append(out, name)
		}
	}
	for _, name := range r.spec.Clients.Interfaces {
		add(name)
	}
	for _, n := range r.spec.Networks {
		for _, p := range n.Ports {
			add(p.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// maxPoolAddresses bounds the addresses of one family of a pool that clients
// are spread over, and with them the size of a translation map.
const maxPoolAddresses = 1024

// ownAddresses are this node's addresses on a port: those wanted and those the
// kernel has, so that neither order of adding them loses a packet of ours.
func (r *resolver) ownAddresses(p vrf.Port) []netip.Addr {
	out := linkAddresses(r.st.Links[p.Name])
	for _, a := range p.Addresses {
		out = append(out, a.Addr())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// poolAddresses lists the first maxPoolAddresses of each family.
func poolAddresses(prefixes []netip.Prefix) (v4, v6 []netip.Addr) {
	sorted := slices.SortedFunc(slices.Values(prefixes), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, p := range sorted {
		list := &v4
		if p.Addr().Is6() {
			list = &v6
		}
		for a := p.Masked().Addr(); a.IsValid() && p.Contains(a) && len(*list) < maxPoolAddresses; a = a.Next() {
			*list = append(*list, a)
		}
	}
	return v4, v6
}
