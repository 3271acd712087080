package vrf

import (
	"cmp"
	"slices"
)

// removeAddresses deletes our addresses that are no longer wanted, on whatever
// device they are.
func (p *planner) removeAddresses() {
	for _, name := range p.links.names() {
		l := p.links[name]
		w, isPort := p.portByName[name]
		if p.owner.ownsVLAN(l.Link) && (!isPort || w.VLAN == nil) {
			continue // goes as a whole
		}
		var gone, stay []Address
		for _, a := range l.Addresses {
			if a.Protocol == p.owner.Protocol && !slices.Contains(w.Addresses, a.Prefix) {
				gone = append(gone, a)
			} else {
				stay = append(stay, a)
			}
		}
		p.dropAddresses(l, gone, stay)
	}
}

// dropAddresses deletes gone. With the primary IPv4 address of a subnet the
// kernel also deletes the secondary ones, unless promote_secondaries is set: they
// are put again. Secondary addresses are deleted first.
func (p *planner) dropAddresses(l *modelLink, gone, stay []Address) {
	slices.SortFunc(gone, func(a, b Address) int {
		return cmp.Or(cmp.Compare(b.Flags&addrSecondary, a.Flags&addrSecondary), a.Prefix.Compare(b.Prefix))
	})
	network := p.deviceNetwork(l.Name)
	var again []Address
	for _, a := range gone {
		p.step(network, DeleteAddress{Device: l.Name, Prefix: a.Prefix}, p.addresses[l.Name])
		if a.Prefix.Addr().Is6() || a.Flags&addrSecondary != 0 {
			continue
		}
		for _, s := range stay {
			if s.Prefix.Masked() == a.Prefix.Masked() && !slices.Contains(again, s) {
				again = append(again, s)
			}
		}
	}
	slices.SortFunc(again, func(a, b Address) int { return a.Prefix.Compare(b.Prefix) })
	for _, a := range again {
		p.step(network, PutAddress{Device: l.Name, Address: a}, nil)
	}
	l.Addresses = stay
}

// releasePorts takes the devices out of our VRFs that are not wanted there.
func (p *planner) releasePorts() {
	for _, name := range p.links.names() {
		l := p.links[name]
		w, isPort := p.portByName[name]
		if !p.ourPort(l) || (isPort && (w.network == l.Master || p.blocked[w.network] || p.blockedPort[name])) {
			continue
		}
		if p.owner.ownsVLAN(l.Link) && (!isPort || w.VLAN == nil) {
			continue // goes as a whole
		}
		p.release(l)
		p.putBack(l)
	}
}

// removeVLANs deletes our VLAN devices that no port wants.
func (p *planner) removeVLANs() {
	for _, name := range p.links.names() {
		l, ok := p.links.get(name)
		if w, isPort := p.portByName[name]; !ok || !p.owner.ownsVLAN(l.Link) || (isPort && w.VLAN != nil) {
			continue
		}
		p.step(p.deviceNetwork(name), DeleteLink{Device: name}, nil)
		p.links.remove(name)
	}
}

// removeVRFs deletes our VRF devices that are not wanted.
func (p *planner) removeVRFs() {
	for _, name := range p.links.names() {
		l, ok := p.links.get(name)
		if _, wanted := p.vrfByName[name]; !ok || wanted || !p.owner.ownsVRF(l.Link) {
			continue
		}
		needs := slices.Clone(p.ruleDrops[l.Table])
		for table, drops := range p.ruleDrops {
			if p.networkOf[table] == name {
				needs = append(needs, drops...)
			}
		}
		p.step(name, DeleteLink{Device: name}, needs)
		p.links.remove(name)
	}
}
