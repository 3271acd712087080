package config

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/egret-router/egret/vrf"
)

// ports checks the interfaces of a network.
func (p *parser) ports(n *network, raw RawNetwork) []vrf.Port {
	at := n.at.key("interfaces")
	if len(raw.Interfaces) == 0 {
		p.add(at, "is missing: name the uplink device of this network")
	}
	if len(raw.Addresses) > 0 {
		switch {
		case len(raw.Interfaces) != 1:
			p.add(n.at.key("addresses"), "is for a network with exactly one interface, this one has %d: write the addresses in interfaces[]", len(raw.Interfaces))
		case len(raw.Interfaces[0].Addresses) > 0:
			p.add(n.at.key("addresses"), "is given here and in interfaces[0]: write all in one place")
		}
	}
	var ports []vrf.Port
	for i, iface := range raw.Interfaces {
		port := vrf.Port{Name: iface.Name, VLAN: p.vlan(at.index(i).key("vlan"), iface.VLAN)}
		nameAt := at.index(i).key("name")
		if port.Name == "" && port.VLAN != nil && port.VLAN.Parent != "" && port.VLAN.ID != 0 {
			port.Name = port.VLAN.Parent + "." + strconv.Itoa(int(port.VLAN.ID))
		}
		if p.device(nameAt, port.Name) {
			p.claim(nameAt, port.Name, n.name)
		}
		if port.VLAN != nil {
			p.vlanNames[port.Name] = true
		}
		port.Addresses = p.addresses(n, at.index(i).key("addresses"), iface.Addresses)
		ports = append(ports, port)
	}
	if len(ports) == 1 {
		ports[0].Addresses = append(ports[0].Addresses, p.addresses(n, n.at.key("addresses"), raw.Addresses)...)
	}
	n.ports = ports
	return ports
}

func (p *parser) vlan(at path, raw *RawVLAN) *vrf.VLAN {
	if raw == nil {
		return nil
	}
	if p.device(at.key("parent"), raw.Parent) {
		p.vlanParents = append(p.vlanParents, parent{at.key("parent"), raw.Parent})
	}
	if raw.ID == nil {
		p.add(at.key("id"), "is missing: the VLAN id, 1 to 4094")
	}
	vlan := vrf.VLAN{Parent: raw.Parent, ID: uint16(p.integer(at.key("id"), raw.ID, 0, 1, 4094))}
	if first, taken := p.vlans[vlan]; taken {
		p.add(at, "VLAN %d on %s is used already (%s)", vlan.ID, quote(vlan.Parent), first)
	} else if vlan.ID != 0 {
		p.vlans[vlan] = at
	}
	return &vlan
}

// deviceNames checks what only the whole list of devices can tell.
func (p *parser) deviceNames() {
	for _, name := range p.networkNames {
		if owner, taken := p.devices[name]; taken {
			p.add(p.networks[name].at.key("name"), "%s is also an interface (of %s): the VRF device of the network gets this name", quote(name), owner)
		}
	}
	for _, parent := range p.vlanParents {
		if p.vlanNames[parent.device] {
			p.add(parent.at, "%s is itself a VLAN of this file: the parent must exist already", quote(parent.device))
		}
		if p.networks[parent.device] != nil {
			p.add(parent.at, "%s is a network: its VRF device cannot carry VLANs", quote(parent.device))
		}
	}
}

// addresses checks addresses with their prefix length, for a port of n.
func (p *parser) addresses(n *network, at path, raws []string) []netip.Prefix {
	var addresses []netip.Prefix
	for i, s := range raws {
		at := at.index(i)
		if a, ok := p.address(at, s); ok {
			if n.isOwn(a.Addr()) {
				p.add(at, "%s is listed twice in this network", a.Addr())
				continue
			}
			addresses = append(addresses, a)
			n.own = append(n.own, a)
			n.uses = append(n.uses, use{at, a.Addr(), "an address of the gateway itself cannot be an egress address as well"})
		}
	}
	return addresses
}

// address checks the address of a port, with its prefix length.
func (p *parser) address(at path, s string) (netip.Prefix, bool) {
	if s != "" && !strings.Contains(s, "/") {
		if a, ok := p.addr(at, s); ok {
			p.add(at, "%s has no prefix length: write %s/%d for a link without a subnet, or the length of the subnet", a, a, a.BitLen())
		}
		return netip.Prefix{}, false
	}
	prefix, ok := p.parsePrefix(at, s)
	if !ok {
		return prefix, false
	}
	a, subnet := prefix.Addr(), prefix.Bits() < prefix.Addr().BitLen()-1
	switch {
	case prefix.Bits() == 0:
		p.add(at, "%s would make every address a neighbour: write the length of the subnet", prefix)
	case a.Is6() && a.IsLinkLocalUnicast():
		p.add(at, "%s is link-local: the kernel gives every port such an address by itself", a)
	case notHost(a) != "":
		p.add(at, "%s is %s: a host's unicast address is needed", a, notHost(a))
	case subnet && prefix.Masked().Addr() == a:
		p.add(at, "%s is the subnet's own address: a host's address in it is needed, such as %s/%d", prefix, a.Next(), prefix.Bits())
	case subnet && a.Is4() && !prefix.Contains(a.Next()):
		p.add(at, "%s is the subnet's broadcast address: a host's address in it is needed", prefix)
	default:
		return prefix, true
	}
	return netip.Prefix{}, false
}
