package config

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/vrf"
)

// MaxNetworks and MaxPools are what the packet mark has room for.
const (
	MaxNetworks = 4095
	MaxPools    = 4095
	// MaxSpreads is what the packet filter has codes for (nat.Spread).
	MaxSpreads = 4090
)

// Lengths of names: a network's is also the name of its VRF device.
const (
	maxNetworkName = 15
	maxName        = 63
)

// Parse is the one validator. It returns every problem of raw; only without
// any is the Spec to be used, and it is the zero Spec otherwise.
func Parse(raw Raw) (egress.Spec, []egress.Problem) {
	r := report{}
	spec := parse(&r, raw)
	if len(r.findings) > 0 {
		return egress.Spec{}, r.problems()
	}
	return spec, nil
}

// parser holds what later parts of the configuration refer to.
type parser struct {
	*report
	// devices says whose each network device is: "clients" or a network.
	devices     map[string]string
	vlans       map[vrf.VLAN]path
	vlanNames   map[string]bool
	vlanParents []parent
	// clientPrefixes are clients.prefixes, all of them if clientsSound.
	clientPrefixes *bart.Lite
	clientsSound   bool
	networks       map[string]*network
	networkNames   []string
	pools          map[string]*egress.Pool
	poolNames      []string
	ownership      egress.Ownership
	// template is true while a probe without targets is checked.
	template bool
}

// network is what other objects need to know of a network.
type network struct {
	name  string
	at    path
	ports []vrf.Port
	// own are the addresses on its ports, as configured.
	own []netip.Prefix
	// uses are the addresses that no pool may contain.
	uses []use
	// sources are the probe sources that are no address of its ports.
	sources []use
	// routes are the prefixes of its static routes.
	routes []located
	// pools are the names of its pools, ranges their prefixes with their pool.
	pools  []string
	ranges *bart.Table[string]
}

// located is a prefix and where it is written.
type located struct {
	at     path
	prefix netip.Prefix
}

// parent is the device a VLAN lies on, and where it is written.
type parent struct {
	at     path
	device string
}

// use is an address that the network needs for itself, or for others.
type use struct {
	at   path
	addr netip.Addr
	why  string
}

func parse(r *report, raw Raw) egress.Spec {
	p := &parser{
		report:         r,
		devices:        map[string]string{},
		vlans:          map[vrf.VLAN]path{},
		vlanNames:      map[string]bool{},
		clientPrefixes: new(bart.Lite),
		networks:       map[string]*network{},
		pools:          map[string]*egress.Pool{},
	}
	var spec egress.Spec
	spec.Settings = p.settings(raw)
	p.ownership = spec.Settings.Ownership
	spec.Clients = p.clients(raw.Clients)
	spec.Networks = p.parseNetworks(raw.Networks)
	p.deviceNames()
	p.tables(spec)
	spec.Pools = p.parsePools(raw.Pools)
	spec.Policies = p.policies(raw.Policies, raw.Bindings)
	p.hopSets(spec)
	if raw.Clients.BGP != nil {
		spec.Clients.BGP = p.clientBGP("clients.bgp", *raw.Clients.BGP)
	}
	spec.Settings.BFDLinger = p.bfdLinger("bfd.linger", raw.BFD.Linger, spec)
	if len(raw.Policies)+len(raw.Bindings) > 0 {
		p.clientsForPolicies(raw.Clients)
	}
	return spec
}

// clients checks where clients enter.
func (p *parser) clients(raw RawClients) egress.Clients {
	at := path("clients")
	var c egress.Clients
	for i, name := range raw.Interfaces {
		if at := at.key("interfaces").index(i); p.device(at, name) && p.claim(at, name, "clients") {
			c.Interfaces = append(c.Interfaces, name)
		}
	}
	for i, s := range raw.Prefixes {
		at := at.key("prefixes").index(i)
		prefix, ok := p.prefix(at, s)
		switch {
		case !ok:
		case prefix.Bits() == 0:
			p.add(at, "%s would take in every destination: traffic between client prefixes never goes to a network; name the clients' own prefixes", prefix)
		case insideSpecial(prefix) != "":
			p.add(at, "%s is %s: clients have unicast addresses", prefix, insideSpecial(prefix))
		case p.clientPrefixes.Get(prefix):
			p.add(at, "%s is listed twice", prefix)
		default:
			p.clientPrefixes.Insert(prefix)
			c.Prefixes = append(c.Prefixes, prefix)
		}
	}
	p.clientsSound = len(c.Prefixes) == len(raw.Prefixes) && len(raw.Prefixes) > 0
	c.DropUnmatched = p.oneOf(at.key("unmatched"), raw.Unmatched, "route", "route", "drop") == "drop"
	if c.DropUnmatched && len(raw.Prefixes) == 0 {
		p.add(at.key("unmatched"), "drop needs clients.prefixes: without them it is unknown who is a client")
	}
	c.ReturnTable = p.returnTable(at.key("returnTable"), raw.ReturnTable)
	return c
}

// clientsForPolicies checks that policies can match anything at all.
func (p *parser) clientsForPolicies(raw RawClients) {
	if len(raw.Interfaces) == 0 {
		p.add("clients.interfaces", "is missing: policies need the interfaces by which clients enter")
	}
	if len(raw.Prefixes) == 0 {
		p.add("clients.prefixes", "is missing: policies need the prefixes that clients have their addresses from")
	}
}

// claim notes that a device belongs to owner; a device has one owner.
func (p *parser) claim(at path, device, owner string) bool {
	other, taken := p.devices[device]
	switch {
	case !taken:
		p.devices[device] = owner
		return true
	case other == owner:
		p.add(at, "%s is listed twice", quote(device))
	case other == "clients":
		p.add(at, "%s is a client interface already (clients.interfaces); an interface has one role", quote(device))
	default:
		p.add(at, "%s is an interface of network %s already; an interface has one role", quote(device), quote(other))
	}
	return false
}
