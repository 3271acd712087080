package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress/config"
)

// checks knows which objects are sound. It looks at each when it is first asked.
type checks struct {
	lookup   *lookup
	snapshot *Snapshot
	networks map[*Network]*networkChecks
	pools    map[*Pool][]Problem
	gateways map[*Gateway][]Problem
}

// networkChecks are what is wrong with a network, and on which of its hosts.
type networkChecks struct {
	problems []Problem
	wrong    []bool // by host
}

func newChecks(s *Snapshot, l *lookup) *checks {
	return &checks{l, s, map[*Network]*networkChecks{}, map[*Pool][]Problem{}, map[*Gateway][]Problem{}}
}

func (c *checks) pool(p *Pool) bool       { return len(c.poolProblems(p)) == 0 }
func (c *checks) gateway(g *Gateway) bool { return len(c.gatewayProblems(g)) == 0 }

// host says whether a network is sound on a node.
func (c *checks) host(n *Network, node *Node) bool {
	if n == nil {
		return false
	}
	i := n.host(node)
	return i >= 0 && !c.network(n).wrong[i]
}

// on is the network as a file of a node would say it, for one of its hosts.
// Static routes of the host replace those of the network with the same prefix;
// interfaces and addresses replace all.
func (n *Network) on(host int) config.RawNetwork {
	raw, h := n.Raw, n.Hosts[host]
	raw.Name = n.Name
	if len(h.Interfaces) > 0 {
		raw.Interfaces = h.Interfaces
	}
	if len(h.Addresses) > 0 {
		raw.Addresses = h.Addresses
	}
	raw.StaticRoutes = slices.DeleteFunc(slices.Clone(raw.StaticRoutes), func(r config.RawStaticRoute) bool {
		return slices.ContainsFunc(h.StaticRoutes, func(o config.RawStaticRoute) bool { return o.Prefix == r.Prefix })
	})
	raw.StaticRoutes = append(raw.StaticRoutes, h.StaticRoutes...)
	if raw.BGP != nil && h.RouterID != "" {
		bgp := *raw.BGP
		bgp.RouterID = h.RouterID
		raw.BGP = &bgp
	}
	return raw
}

// network checks a network on each of its hosts, through the validator that the
// nodes use.
func (c *checks) network(n *Network) *networkChecks {
	if known := c.networks[n]; known != nil {
		return known
	}
	r := &reporter{kind: KindNetwork, name: n.Name}
	result := &networkChecks{wrong: make([]bool, len(n.Hosts))}
	if len(n.Hosts) == 0 {
		r.add(ReasonInvalid, "spec.hosts", "is missing: no node can carry the network")
	}
	for i, h := range n.Hosts {
		r.selector(fmt.Sprintf("spec.hosts[%d].nodeSelector", i), h.NodeSelector)
		_, problems := config.Parse(config.Raw{Networks: []config.RawNetwork{n.on(i)}})
		for _, p := range problems {
			r.add(ReasonInvalid, networkField(p.Field, i), "%s", p.Message)
		}
		result.wrong[i] = len(problems) > 0
	}
	result.problems = sortProblems(r.problems)
	c.networks[n] = result
	return result
}

// networkField is a field of networks[0] as one of the object.
func networkField(field string, host int) string {
	field = strings.TrimPrefix(field, "networks[0].")
	first, _, _ := strings.Cut(strings.ReplaceAll(field, "[", "."), ".")
	switch first {
	case "name":
		return "metadata.name"
	case "interfaces", "addresses", "staticRoutes":
		return fmt.Sprintf("spec.hosts[%d].%s", host, field)
	}
	return "spec." + field
}

// poolProblems checks a pool, alone and beside those of its network that come
// before it.
func (c *checks) poolProblems(p *Pool) []Problem {
	if known, ok := c.pools[p]; ok {
		return known
	}
	r := &reporter{kind: KindPool, name: p.Name}
	if p.Raw.Network == "" {
		r.add(ReasonInvalid, "spec.network", "is missing: the name of a network")
	} else if c.lookup.networks[p.Raw.Network] == nil {
		r.add(ReasonNotFound, "spec.network", "there is no network %s", quote(p.Raw.Network))
	}
	// The addresses of a network are no concern: blocks with them are left out.
	raw := config.Raw{Networks: []config.RawNetwork{{Name: "network", Interfaces: []config.RawInterface{{Name: "port"}}}}, Pools: []config.RawPool{p.Raw}}
	raw.Pools[0].Name, raw.Pools[0].Network = "pool", "network"
	_, problems := config.Parse(raw)
	for _, problem := range problems {
		r.add(ReasonInvalid, "spec."+strings.TrimPrefix(problem.Field, "pools[0]."), "%s", problem.Message)
	}
	prefixes := p.prefixes()
	for i, bits := range p.blockSizes() {
		field, most := []string{"spec.blockSizeIPv4", "spec.blockSizeIPv6"}[i], []int{32, 128}[i]
		if bits < 1 || bits > most {
			r.add(ReasonInvalid, field, "%d is out of range: 1 to %d are allowed", bits, most)
			continue
		}
		for _, prefix := range prefixes {
			if familyIndex(prefix) == i && prefix.Bits() > bits {
				r.add(ReasonInvalid, field, "%s has no block of /%d in it", prefix, bits)
			}
		}
	}
	c.overlaps(p, prefixes, r)
	c.pools[p] = r.problems
	return r.problems
}

func (c *checks) overlaps(p *Pool, prefixes []netip.Prefix, r *reporter) {
	for i := range c.snapshot.Pools {
		other := &c.snapshot.Pools[i]
		if other.Raw.Network != p.Raw.Network || other.Name >= p.Name {
			continue
		}
		for _, prefix := range prefixes {
			if j := slices.IndexFunc(other.prefixes(), prefix.Overlaps); j >= 0 {
				r.add(ReasonConflict, "spec.prefixes", "%s overlaps %s of pool %s in the same network %s", prefix, other.prefixes()[j], quote(other.Name), quote(p.Raw.Network))
			}
		}
	}
}

// gatewayProblems checks a gateway and that what it names exists.
func (c *checks) gatewayProblems(g *Gateway) []Problem {
	if known, ok := c.gateways[g]; ok {
		return known
	}
	r := &reporter{kind: KindGateway, namespace: g.Namespace, name: g.Name}
	pool := c.lookup.pools[g.Pool]
	switch {
	case g.Network == "":
		r.add(ReasonInvalid, "spec.externalNetwork", "is missing: the name of a network")
	case c.lookup.networks[g.Network] == nil:
		r.add(ReasonNotFound, "spec.externalNetwork", "there is no network %s", quote(g.Network))
	}
	switch {
	case g.Pool == "":
		r.add(ReasonInvalid, "spec.pool", "is missing: the name of a pool")
	case pool == nil:
		r.add(ReasonNotFound, "spec.pool", "there is no pool %s", quote(g.Pool))
	case pool.Deleted:
		r.add(ReasonConflict, "spec.pool", "pool %s is being deleted, and goes when no gateway holds its addresses: name another pool", quote(g.Pool))
	case pool.Raw.Network != g.Network:
		r.add(ReasonInvalid, "spec.pool", "%s is a pool of network %s, not of %s", quote(g.Pool), quote(pool.Raw.Network), quote(g.Network))
	}
	r.selector("spec.nodeSelector", g.NodeSelector)
	g.checkNumbers(r)
	probes := g.FailureDetection.probes(gatewayName(g), r)
	probes = append(probes, g.Probes...)
	if len(probes) > 0 {
		c.probes(probes, len(probes)-len(g.Probes), r)
	}
	c.gateways[g] = r.problems
	return r.problems
}

// probes runs probes through the validator of the nodes. The first of them are
// from the failure detection.
func (c *checks) probes(probes []config.RawProbe, converted int, r *reporter) {
	_, problems := config.Parse(config.Raw{Networks: []config.RawNetwork{{Name: "network", Interfaces: []config.RawInterface{{Name: "port"}}, Probes: probes}}})
	for _, p := range problems {
		var i int
		field := "spec.probes"
		if n, _ := fmt.Sscanf(p.Field, "networks[0].probes[%d]", &i); n == 1 {
			rest := strings.TrimPrefix(p.Field, fmt.Sprintf("networks[0].probes[%d]", i))
			if field = detectionField + detectionPart(probes[i].Type, rest); i >= converted {
				field = fmt.Sprintf("spec.probes[%d]%s", i-converted, rest)
			} else {
				p.Message = strings.Replace(p.Message, ", and the name as http.host", "; an entry of spec.probes can have the name, too (http.host)", 1)
			}
		}
		r.add(ReasonInvalid, field, "%s", p.Message)
	}
}

// detectionPart is a field of a probe as one of the failure detection.
func detectionPart(kind, field string) string {
	if kind == "http" {
		return ".httpProbe" + strings.Replace(field, ".targets", ".urls", 1)
	}
	return ".icmpProbe" + strings.Replace(field, ".targets", ".ips", 1)
}

// conflicts finds networks that cannot be on one node: with the same table, or
// an interface of another.
func (c *checks) conflicts() []Problem {
	var problems []Problem
	tables := map[int64]string{}
	conflict := func(n *Network, field, format string, args ...any) {
		r := &reporter{kind: KindNetwork, name: n.Name}
		r.add(ReasonConflict, field, format, args...)
		problems = append(problems, r.problems...)
	}
	for i := range c.snapshot.Networks {
		n := &c.snapshot.Networks[i]
		if n.Raw.Table == nil {
			continue
		}
		if other, taken := tables[*n.Raw.Table]; taken {
			conflict(n, "spec.table", "%d is the table of network %s already", *n.Raw.Table, quote(other))
		} else {
			tables[*n.Raw.Table] = n.Name
		}
	}
	for i := range c.snapshot.Nodes {
		node := &c.snapshot.Nodes[i]
		owners := map[string]string{}
		for j := range c.snapshot.Networks {
			n := &c.snapshot.Networks[j]
			host := n.host(node)
			if host < 0 {
				continue
			}
			for _, iface := range n.on(host).Interfaces {
				name := interfaceName(iface)
				if other, taken := owners[name]; taken && other != n.Name {
					conflict(n, fmt.Sprintf("spec.hosts[%d].interfaces", host), "%s is an interface of network %s already, on node %s for one", quote(name), quote(other), c.firstShared(n, host, other, name))
				} else {
					owners[name] = n.Name
				}
			}
		}
	}
	return problems
}

// firstShared is the first node with an interface in both networks, so that the
// same problem of many nodes is one.
func (c *checks) firstShared(n *Network, host int, other, name string) string {
	o := c.lookup.networks[other]
	for i := range c.snapshot.Nodes {
		node := &c.snapshot.Nodes[i]
		if j := o.host(node); n.host(node) == host && j >= 0 && slices.ContainsFunc(o.on(j).Interfaces, func(i config.RawInterface) bool { return interfaceName(i) == name }) {
			return node.Name
		}
	}
	return ""
}

func interfaceName(i config.RawInterface) string {
	if i.Name == "" && i.VLAN != nil && i.VLAN.ID != nil {
		return fmt.Sprintf("%s.%d", i.VLAN.Parent, *i.VLAN.ID)
	}
	return cmp.Or(i.Name, "?")
}
