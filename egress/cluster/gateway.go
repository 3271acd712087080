package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
)

// DefaultPasswordDir is where the passwords of BGP peers are put.
const DefaultPasswordDir = "/run/egret/passwords"

// GatewayOptions is what a gateway's node knows beside the objects.
type GatewayOptions struct {
	// Base are the settings that no object has: runDir, metrics, ownership. Its
	// clients, networks, pools, policies and bindings are not looked at; the rest
	// must be sound, or Spec is empty and every object blamed.
	Base config.Raw
	// Interfaces are those that clients' packets come in by: the tunnel device, and
	// the end of the loop for clients on this node.
	Interfaces []string
	// ReturnTable is the table that leads back through the tunnel; nil is main.
	ReturnTable *int64
	// Prefixes are further sources of clients, beside what nodes and pods say.
	Prefixes []netip.Prefix
	// PasswordDir is an absolute path; "" means DefaultPasswordDir.
	PasswordDir string
	Mode        Mode
	// Memo may be nil.
	Memo *Memo
}

// GatewayPlan is the work of one node as a gateway.
type GatewayPlan struct {
	// Raw is what a configuration file of this node would say, and Spec what the
	// validator makes of it.
	Raw  config.Raw
	Spec egress.Spec
	// Files are to be written before Spec is used: passwords, by their paths.
	Files map[string]string
	// Returns lead back to clients.
	Returns []Return
	// Here are the gateways that this node is, in the order of their IDs.
	Here []GatewayHere
}

// Return is the way back to clients: the tunnel to Node, which ends at Endpoint.
type Return struct {
	Prefix   netip.Prefix
	Node     string
	Endpoint netip.Addr
	// Here means that they are on this node itself.
	Here bool
}

// GatewayHere is a gateway on this node: its network says whether it works.
type GatewayHere struct {
	ID            string
	Network, Pool string // names in Raw
	Draining      bool
}

// here is a gateway that is being planned.
type here struct {
	gateway  *Gateway
	place    int // in the Snapshot
	draining bool
	pool     config.RawPool
	probes   []config.RawProbe
	families [2]bool // of its blocks
}

// GatewayConfig is the configuration of the gateways on a node. It depends on
// nothing but its arguments, and says the same of equal ones.
//
//   - Networks are those of the node's gateways, with the first host configuration
//     that matches, and the probes of these gateways beside their own.
//   - Each gateway has a pool of its own, of the blocks that it holds.
//   - Policies are the cluster's that lead here, their clients the addresses of all
//     pods bound to them. What a policy sends elsewhere, or nowhere, is dropped: a
//     client's node does not decide what a gateway lets through.
//   - Where a rule leads to several gateways of this node, those that do not drain
//     come first, then the first by namespace and name.
//   - Pods bound to a policy that does not exist are bound to it here as well.
//
// Spec is what Raw means: an object that the validator refuses is left out, with
// what refers to it, and reported.
func GatewayConfig(s Snapshot, node string, o GatewayOptions) (GatewayPlan, []Problem) {
	l := newLookup(&s)
	p := &gatewayPlanner{options: o, snapshot: &s, lookup: l, node: l.nodes[node], files: map[string]string{},
		binder: newBinder(&s, l, o.Mode, o.Memo), candidates: newCandidates(&s, l)}
	p.options.PasswordDir = cmp.Or(o.PasswordDir, DefaultPasswordDir)
	if p.node == nil {
		p.node = &Node{Name: node}
	}
	raw := o.Base
	raw.Networks, raw.Pools, raw.Policies, raw.Bindings = nil, nil, nil, nil
	raw.Clients = p.clients()
	raw = p.networks(raw)
	raw = p.gateways(raw)
	spec, raw := p.policies(raw)
	plan := GatewayPlan{Raw: raw, Spec: spec, Files: p.usedFiles(raw), Returns: p.returns()}
	for _, h := range p.here {
		plan.Here = append(plan.Here, GatewayHere{InstanceID(h.gateway.Key(), node), h.gateway.Network, h.pool.Name, h.draining})
	}
	slices.SortFunc(plan.Here, func(a, b GatewayHere) int { return strings.Compare(a.ID, b.ID) })
	return plan, sortProblems(append(p.problems, p.binder.problems...))
}

type gatewayPlanner struct {
	options    GatewayOptions
	snapshot   *Snapshot
	lookup     *lookup
	node       *Node
	binder     *binder
	candidates *candidates
	here       []here
	files      map[string]string
	// served are the pods' addresses that have a policy here, with their node.
	served   map[netip.Addr]string
	problems []Problem
}

func (p *gatewayPlanner) reporter(g *Gateway) *reporter {
	return &reporter{kind: KindGateway, namespace: g.Namespace, name: g.Name}
}

// clients are where clients' packets come from.
func (p *gatewayPlanner) clients() config.RawClients {
	var prefixes []netip.Prefix
	for _, prefix := range p.options.Prefixes {
		if podPrefix(prefix) {
			prefixes = append(prefixes, prefix)
		}
	}
	prefixes = podSources(p.snapshot, prefixes)
	raw := config.RawClients{Interfaces: p.options.Interfaces, ReturnTable: p.options.ReturnTable}
	for _, prefix := range prefixes {
		raw.Prefixes = append(raw.Prefixes, prefix.String())
	}
	if len(prefixes) > 0 { // without any there is nobody to drop
		raw.Unmatched = "drop"
	}
	return raw
}

// networks adds those that the node's gateways are in.
func (p *gatewayPlanner) networks(raw config.Raw) config.Raw {
	wanted := map[string]bool{}
	for i := range p.snapshot.Gateways {
		if g := &p.snapshot.Gateways[i]; g.at(p.node.Name) != nil {
			wanted[g.Network] = true
		}
	}
	var parts []part
	for i := range p.snapshot.Networks {
		n := &p.snapshot.Networks[i]
		if !wanted[n.Name] {
			continue
		}
		r := &reporter{kind: KindNetwork, name: n.Name}
		host := n.host(p.node)
		if host < 0 {
			r.add(ReasonNotFound, "spec.hosts", "none is for node %s, which has a gateway of this network", p.node.Name)
			p.problems = append(p.problems, r.problems...)
			continue
		}
		network := p.withPasswords(n, n.on(host))
		parts = append(parts, part{r, func(raw *config.Raw) { raw.Networks = append(raw.Networks, network) },
			func(field string) string { return networkField(trimIndex(field, "networks"), host) }})
	}
	return p.admit(raw, parts)
}

// withPasswords makes the network's passwords files, and names them.
func (p *gatewayPlanner) withPasswords(n *Network, raw config.RawNetwork) config.RawNetwork {
	if raw.BGP == nil || len(n.Passwords) == 0 {
		return raw
	}
	bgp := *raw.BGP
	bgp.Peers = slices.Clone(bgp.Peers)
	for i := range bgp.Peers {
		peer := &bgp.Peers[i]
		key := cmp.Or(peer.Address, peer.Range)
		if password, has := n.Passwords[key]; has {
			peer.PasswordFile, peer.PasswordEnv = path.Join(p.options.PasswordDir, n.Name+"-"+plainName(key+".")), ""
			p.files[peer.PasswordFile] = password
		}
	}
	raw.BGP = &bgp
	return raw
}

// usedFiles are the files that raw names.
func (p *gatewayPlanner) usedFiles(raw config.Raw) map[string]string {
	files := map[string]string{}
	for _, n := range raw.Networks {
		if n.BGP == nil {
			continue
		}
		for _, peer := range n.BGP.Peers {
			if password, ours := p.files[peer.PasswordFile]; ours {
				files[peer.PasswordFile] = password
			}
		}
	}
	return files
}

// gateways adds the pools of the node's gateways, and their probes. Those that are
// accepted are here.
func (p *gatewayPlanner) gateways(raw config.Raw) config.Raw {
	var names namer
	var parts []part
	var planned []here
	for i := range p.snapshot.Gateways {
		g := &p.snapshot.Gateways[i]
		at := g.at(p.node.Name)
		if at == nil {
			continue
		}
		r := p.reporter(g)
		h := here{gateway: g, place: i, draining: g.draining(at)}
		name := names.name(gatewayName(g)) // also of what is wrong: a name does not depend on other gateways
		if p.plan(&h, name, raw, r); !r.ok() {
			p.problems = append(p.problems, r.problems...)
			continue
		}
		planned = append(planned, h)
		parts = append(parts, part{r, func(raw *config.Raw) { addGateway(raw, h) }, gatewayField})
	}
	raw = p.admit(raw, parts)
	accepted := map[string]bool{}
	for _, pool := range raw.Pools {
		accepted[pool.Name] = true
	}
	p.here = slices.DeleteFunc(planned, func(h here) bool { return !accepted[h.pool.Name] })
	slices.SortStableFunc(p.here, func(a, b here) int {
		switch {
		case a.draining == b.draining:
			return strings.Compare(a.gateway.Key(), b.gateway.Key())
		case a.draining:
			return 1
		}
		return -1
	})
	return raw
}

// gatewayField is the field of a gateway that one of the configuration follows from.
func gatewayField(field string) string {
	if strings.HasPrefix(field, "pools[") {
		return "spec.pool"
	}
	return "spec.probes"
}

// plan makes the pool and the probes of a gateway.
func (p *gatewayPlanner) plan(h *here, name string, raw config.Raw, r *reporter) {
	g := h.gateway
	pool := p.lookup.pools[g.Pool]
	switch {
	case pool == nil:
		r.add(ReasonNotFound, "spec.pool", "there is no pool %s", quote(g.Pool))
		return
	case pool.Raw.Network != g.Network:
		r.add(ReasonInvalid, "spec.pool", "%s is a pool of network %s, not of %s", quote(g.Pool), quote(pool.Raw.Network), quote(g.Network))
		return
	case !slices.ContainsFunc(raw.Networks, func(n config.RawNetwork) bool { return n.Name == g.Network }):
		r.add(ReasonNotFound, "spec.externalNetwork", "there is no network %s that node %s can carry", quote(g.Network), p.node.Name)
		return
	}
	h.pool = pool.Raw
	h.pool.Name, h.pool.Prefixes = name, nil
	allocations := slices.SortedFunc(slices.Values(pool.Allocations), compareAllocations)
	for _, x := range allocations {
		if x.Gateway == g.Key() && x.UID == g.UID && x.Node == p.node.Name && x.Block.IsValid() {
			h.pool.Prefixes = append(h.pool.Prefixes, x.Block.String())
			h.families[familyIndex(x.Block)] = true
		}
	}
	if len(h.pool.Prefixes) == 0 {
		r.add(ReasonExhausted, "spec.pool", "has no addresses of pool %s on node %s", quote(g.Pool), p.node.Name)
		return
	}
	h.probes = g.FailureDetection.probes(name, r)
	for i, probe := range g.Probes {
		probe.Name = plainName(name + "-" + cmp.Or(probe.Name, fmt.Sprintf("%s%d", probe.Type, i)))
		h.probes = append(h.probes, probe)
	}
}

// addGateway adds the pool and the probes of a gateway.
func addGateway(raw *config.Raw, h here) {
	raw.Pools = append(raw.Pools, h.pool)
	i := slices.IndexFunc(raw.Networks, func(n config.RawNetwork) bool { return n.Name == h.gateway.Network })
	if len(h.probes) > 0 {
		raw.Networks = slices.Clone(raw.Networks)
		raw.Networks[i].Probes = slices.Concat(raw.Networks[i].Probes, h.probes)
	}
}
