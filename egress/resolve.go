package egress

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// Resolve decides what should exist, from what the user asked and what was
// observed. It is pure and total: whatever the State, the result fails closed.
func Resolve(spec *Spec, st State) Desired {
	held := make(map[string]uint16, len(st.Adopted))
	for name, a := range st.Adopted {
		held[name] = a.Index
	}
	names := make([]string, 0, len(spec.Networks))
	for _, n := range spec.Networks {
		names = append(names, n.Name)
	}
	r := resolver{spec: spec, st: st, own: spec.Settings.Ownership,
		indexes: assignIndexes(names, held), pools: poolsByNetwork(spec.Pools),
		objects: newObjects(spec.Settings.Ownership.Owner())}
	var d Desired
	// By name: the order of the file must not decide who gets which id.
	networks := slices.SortedFunc(slices.Values(spec.Networks), func(a, b Network) int { return cmp.Compare(a.Name, b.Name) })
	for i := range networks {
		d.Networks = append(d.Networks, r.network(&d, &networks[i]))
	}
	d.Kernel.NextHops, d.Kernel.Groups = r.objects.all()
	d.Kernel.Rules = append(d.Kernel.Rules, commonRules(spec)...)
	d.NAT = r.nat(&d)
	d.BGP = r.bgp(&d)
	d.Sysctls = sysctls(spec)
	return d
}

type resolver struct {
	spec    *Spec
	st      State
	own     Ownership
	indexes map[string]uint16
	pools   map[string][]Pool
	objects *objects
}

// network decides on one network and adds its kernel objects and probes to d.
func (r *resolver) network(d *Desired, n *Network) NetworkDecision {
	index := r.indexes[n.Name]
	dec := NetworkDecision{Name: n.Name, Index: index, Table: n.Table,
		Zone: r.own.ZoneBase + index, Mark: hopSetMark(index)}
	if dec.Table == 0 {
		dec.Table = r.own.TableBase + vrf.TableID(index)
	}
	d.Kernel.VRFs = append(d.Kernel.VRFs, vrf.VRF{Name: n.Name, Index: index, Table: dec.Table, Ports: n.Ports})

	t := newTable(r, n, &dec)
	t.terminal()
	for _, p := range r.pools[n.Name] {
		t.pool(p)
	}
	for _, s := range n.StaticRoutes {
		t.static(s)
	}
	t.learned()
	d.Kernel.Routes = append(d.Kernel.Routes, t.routes...)
	dec.NextHops = t.hops()

	dec.Up, dec.Reason = r.judge(n, t)
	d.Kernel.Rules = append(d.Kernel.Rules, networkRules(n, &dec, r.own.RulePriorities.First)...)
	d.Probes = append(d.Probes, n.Probes...)
	return dec
}

// judge decides whether a network may carry policy traffic. Unknown verdicts
// change nothing: an adopted network goes on as the kernel has it, a new one
// is down until proven.
func (r *resolver) judge(n *Network, t *table) (up bool, reason string) {
	if !t.usable() {
		return false, t.unusable()
	}
	switch verdict, who := r.verdict(n); verdict {
	case probes.Down:
		return false, "probe " + who + " is down"
	case probes.Unknown:
		if r.st.Adopted[n.Name].Forwarding {
			return true, "probe " + who + " has no verdict yet; the kernel was forwarding"
		}
		return false, "probe " + who + " has no verdict yet"
	}
	return true, ""
}

// verdict combines a network's probes: all must be up; the first that is not
// is named.
func (r *resolver) verdict(n *Network) (probes.Verdict, string) {
	unknown := ""
	for _, p := range n.Probes {
		switch r.st.Verdicts[p.Name] {
		case probes.Down:
			return probes.Down, p.Name
		case probes.Unknown:
			unknown = cmp.Or(unknown, p.Name)
		}
	}
	if unknown != "" {
		return probes.Unknown, unknown
	}
	return probes.Up, ""
}

// Rule priorities, offsets into Ownership.RulePriorities.
const (
	prioReturn  = 0
	prioBlocked = 5
	prioLookup  = 10
	prioCatch   = 190
)

// tableMain is RT_TABLE_MAIN.
const tableMain vrf.TableID = 254

// commonRules are there for all networks: replies go to the client side, and
// policy traffic that no network's rule took goes nowhere.
func commonRules(spec *Spec) []vrf.Rule {
	first := spec.Settings.Ownership.RulePriorities.First
	back := spec.Clients.ReturnTable
	if back == 0 {
		back = tableMain
	}
	var out []vrf.Rule
	for _, v6 := range []bool{false, true} {
		out = append(out,
			vrf.Rule{Priority: first + prioReturn, IPv6: v6, Mark: markReturn, Mask: markReturn, Action: vrf.RuleLookup, Table: back},
			vrf.Rule{Priority: first + prioCatch, IPv6: v6, Mark: markEgress, Mask: markEgress, Action: vrf.RuleUnreachable})
	}
	return out
}

// networkRules send a network's policy traffic to its table, or block it while
// the network is down. The lookup stays behind the block, so that going down
// and coming up are one message per family.
func networkRules(n *Network, dec *NetworkDecision, first uint32) []vrf.Rule {
	var out []vrf.Rule
	for _, v6 := range []bool{false, true} {
		if !dec.Up {
			action := vrf.RuleBlackhole
			if n.OnNoNextHop == NoNextHopReject {
				action = vrf.RuleProhibit
			}
			out = append(out, vrf.Rule{Priority: first + prioBlocked, IPv6: v6, Mark: dec.Mark, Mask: maskHopSet, Action: action})
		}
		out = append(out, vrf.Rule{Priority: first + prioLookup, IPv6: v6, Mark: dec.Mark, Mask: maskHopSet, Action: vrf.RuleLookup, Table: dec.Table})
	}
	return out
}

func poolsByNetwork(pools []Pool) map[string][]Pool {
	out := map[string][]Pool{}
	for _, p := range pools {
		out[p.Network] = append(out[p.Network], p)
	}
	return out
}

// bgp is the speakers' configuration. A network that is down advertises
// nothing, but keeps its sessions and what it learned.
func (r *resolver) bgp(d *Desired) []bgp.Config {
	var out []bgp.Config
	for i := range r.spec.Networks {
		n := &r.spec.Networks[i]
		if n.BGP == nil {
			continue
		}
		adopted, ok := r.st.Adopted[n.Name]
		c := bgp.Config{Network: n.Name, Device: n.Name, ASN: n.BGP.ASN, RouterID: n.BGP.RouterID,
			ListenPort: listenPort(n.BGP), Peers: n.BGP.Peers, GracefulRestart: n.BGP.GracefulRestart,
			Restarting: ok && adopted.Forwarding}
		for _, p := range r.pools[n.Name] {
			c.Reject = append(c.Reject, p.Prefixes...)
			if !d.network(n.Name).Up {
				continue
			}
			for _, prefix := range p.Prefixes {
				c.Advertise = append(c.Advertise, bgp.Advertisement{Prefix: prefix, Communities: p.Communities})
			}
		}
		out = append(out, c)
	}
	return out
}

// listenPort is -1 unless we are to wait for a peer's dialling (passive). When
// both sides dial, connections collide (RFC 4271 6.8), and GoBGP may leave the
// losing one open, which the peer then takes for the winner and closes the
// session just established. Where only we dial, every few seconds, nothing can
// collide.
func listenPort(b *BGP) int {
	for _, p := range b.Peers {
		if p.Passive {
			return b.ListenPort
		}
	}
	return -1
}

// maxPoolAddresses bounds the addresses of one family of a pool that clients
// are spread over, and with them the size of a translation map.
const maxPoolAddresses = 1024

// nat is the packet filter's configuration.
func (r *resolver) nat(d *Desired) nat.Config {
	c := nat.Config{ClientInterfaces: r.spec.Clients.Interfaces, ClientPrefixes: r.spec.Clients.Prefixes,
		ReturnMark: uint32(markReturn), DropUnmatched: r.spec.Clients.DropUnmatched}
	poolNames := make([]string, 0, len(r.spec.Pools))
	for _, p := range r.spec.Pools {
		poolNames = append(poolNames, p.Name)
	}
	poolIndex := assignIndexes(poolNames, nil)
	for _, n := range r.spec.Networks {
		dec := d.network(n.Name)
		f := nat.Network{Name: n.Name, Device: n.Name, Zone: dec.Zone}
		for _, p := range n.Ports {
			f.Ports = append(f.Ports, p.Name)
			f.Own = append(f.Own, r.ownAddresses(p)...)
		}
		for _, p := range r.pools[n.Name] {
			f.Sources = append(f.Sources, p.Prefixes...)
			v4, v6 := poolAddresses(p.Prefixes)
			c.Pools = append(c.Pools, nat.Pool{Name: p.Name, Network: n.Name, ID: poolIndex[p.Name], Pool4: v4, Pool6: v6})
			c.Exits = append(c.Exits, nat.Exit{Name: exitName(n.Name, p.Name), Network: n.Name,
				Mark: uint32(exitMark(dec.Index, poolIndex[p.Name])), Pool: p.Name})
		}
		c.Networks = append(c.Networks, f)
	}
	for _, p := range r.spec.Policies {
		c.Policies = append(c.Policies, natPolicy(p))
	}
	return c
}

func exitName(network, pool string) string { return network + "." + pool }

func natPolicy(p Policy) nat.Policy {
	out := nat.Policy{Name: p.Name, Clients: p.Clients}
	for _, rule := range p.Rules {
		nr := nat.Rule{Destination: rule.Destination}
		switch rule.Action {
		case ActionNetwork:
			nr.Action, nr.Exit = nat.ToExit, exitName(rule.Network, rule.Pool)
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
