package vrf

import (
	"net/netip"
	"slices"
	"strconv"
)

func nameKey(name string) string    { return "name " + name }
func tableKey(table TableID) string { return "table " + strconv.FormatUint(uint64(table), 10) }
func vlanKey(v VLAN) string         { return "vlan " + strconv.Itoa(int(v.ID)) + " on " + v.Parent }

// addVRFs creates the VRF devices, names them and brings them up.
func (p *planner) addVRFs() {
	for _, v := range p.vrfs {
		if p.blocked[v.Name] {
			continue
		}
		l, ok := p.links.get(v.Name)
		if !ok {
			p.create(v.Name, v.Name, AddVRF{Name: v.Name, Table: v.Table, Group: p.owner.newGroup()},
				p.roomFor(nameKey(v.Name), tableKey(v.Table)))
			l = p.links.add(Link{Name: v.Name, Kind: "vrf", Table: v.Table, Group: p.owner.newGroup()})
		}
		p.rename(v.Name, l, p.owner.aliasOf(v))
		p.up(v.Name, l)
	}
}

// create appends the step that makes a device.
func (p *planner) create(network, device string, a Action, needs []int) {
	p.last[device] = p.step(network, a, needs)
	p.unblocks[network] = append(p.unblocks[network], p.last[device])
}

// roomFor is the need for the evictions that made room.
func (p *planner) roomFor(keys ...string) (needs []int) {
	for _, key := range keys {
		if i, ok := p.cleared[key]; ok && !slices.Contains(needs, i) {
			needs = append(needs, i)
		}
	}
	return needs
}

func (p *planner) rename(network string, l *modelLink, alias string) {
	if l.Alias == alias && l.Group != p.owner.newGroup() {
		return
	}
	p.deviceStep(network, l.Name, SetAlias{Device: l.Name, Alias: alias})
	l.Alias, l.Group = alias, 0
}

func (p *planner) up(network string, l *modelLink, others ...string) {
	if l.Up {
		return
	}
	p.deviceStep(network, l.Name, SetUp{Device: l.Name}, others...)
	l.Up, l.fresh = true, true
}

// addVLANs creates the VLAN devices. A parent may itself be a wanted VLAN, so
// this goes round until nothing changes any more.
func (p *planner) addVLANs() {
	pending := slices.DeleteFunc(slices.Clone(p.ports), func(w wantPort) bool {
		return w.VLAN == nil || p.blocked[w.network] || p.blockedPort[w.Name]
	})
	for len(pending) > 0 {
		waiting := slices.DeleteFunc(slices.Clone(pending), func(w wantPort) bool {
			_, ok := p.links.get(w.VLAN.Parent)
			return ok
		})
		if len(waiting) == len(pending) {
			break
		}
		for _, w := range pending {
			if !slices.ContainsFunc(waiting, func(o wantPort) bool { return o.Name == w.Name }) {
				p.addVLAN(w)
			}
		}
		pending = waiting
	}
	for _, w := range pending {
		p.failPort(w, "parent %q of port %q does not exist", w.VLAN.Parent, w.Name)
	}
}

func (p *planner) addVLAN(w wantPort) {
	parent := p.links[w.VLAN.Parent]
	l, ok := p.links.get(w.Name)
	switch {
	case ok && !p.owner.ownsVLAN(l.Link):
		p.failPort(w, "device %q exists and is not ours", w.Name)
		return
	case !ok:
		if other := p.foreignVLAN(*w.VLAN); other != "" {
			p.failPort(w, "VLAN %d of %q is device %q, which is not ours", w.VLAN.ID, w.VLAN.Parent, other)
			return
		}
	}
	p.up(w.network, parent)
	if !ok {
		needs := append(p.roomFor(nameKey(w.Name), vlanKey(*w.VLAN)), p.after(parent.Name)...)
		p.create(w.network, w.Name, AddVLAN{Name: w.Name, VLAN: *w.VLAN, Group: p.owner.newGroup()}, needs)
		l = p.links.add(Link{Name: w.Name, Kind: "vlan", Parent: w.VLAN.Parent, VLANID: w.VLAN.ID, Group: p.owner.newGroup()})
	}
	p.rename(w.network, l, p.owner.portAlias())
}

func (p *planner) foreignVLAN(v VLAN) string {
	for _, name := range p.links.names() {
		l := p.links[name]
		if l.Kind == "vlan" && l.Parent == v.Parent && l.VLANID == v.ID {
			return name
		}
	}
	return ""
}

func (p *planner) failPort(w wantPort, format string, args ...any) {
	p.fail(w.network, format, args...)
	p.blockedPort[w.Name] = true
}

// ready lists the wanted ports that nothing forbids, sorted by name.
func (p *planner) ready() []wantPort {
	return slices.DeleteFunc(slices.Clone(p.ports), func(w wantPort) bool {
		return p.blocked[w.network] || p.blockedPort[w.Name]
	})
}

func (p *planner) enslavePorts() {
	for _, w := range p.ready() {
		l, ok := p.links.get(w.Name)
		switch {
		case !ok:
			p.failPort(w, "port %q does not exist", w.Name)
			continue
		case p.owner.ownsDevice(l.Link):
			p.failPort(w, "port %q is a tunnel", w.Name)
			continue
		case w.VLAN == nil && p.owner.ownsVLAN(l.Link):
			p.failPort(w, "port %q is a VLAN that is no longer wanted", w.Name)
			continue
		case l.Master == w.network:
			continue
		case l.Kind == "vrf":
			p.failPort(w, "port %q is a VRF", w.Name)
			continue
		case l.Master != "" && !p.ourPort(l):
			p.failPort(w, "port %q is enslaved to %q, which is not ours", w.Name, l.Master)
			continue
		}
		p.deviceStep(w.network, w.Name, SetMaster{Device: w.Name, Master: w.network}, w.network)
		l.Master = w.network
		p.links.cycle(l)
	}
}

// ourPort says that l is enslaved to a VRF of ours.
func (p *planner) ourPort(l *modelLink) bool {
	master, ok := p.links.get(l.Master)
	return ok && p.owner.ownsVRF(master.Link)
}

func (p *planner) bringUp() {
	for _, w := range p.ready() {
		others := []string(nil)
		if w.VLAN != nil {
			others = append(others, w.VLAN.Parent)
		}
		p.up(w.network, p.links[w.Name], others...)
	}
}

// addAddresses puts back the flushed addresses of others, then adds ours.
func (p *planner) addAddresses() {
	for _, name := range p.links.names() {
		p.putBack(p.links[name])
	}
	for _, w := range p.ready() {
		l := p.links[w.Name]
		for i, prefix := range w.Addresses {
			if i > 0 && prefix.Addr().Is6() && w.Addresses[i-1].Addr() == prefix.Addr() {
				p.fail(w.network, "address %q of port %q is wanted with two prefix lengths", prefix, w.Name)
				continue
			}
			p.addAddress(w, l, prefix)
		}
	}
}

func (p *planner) addAddress(w wantPort, l *modelLink, prefix netip.Prefix) {
	needs := []int(nil)
	for i, a := range l.Addresses {
		if a.Prefix == prefix {
			return // whoever put it there
		}
		// One IPv6 address cannot have two prefix lengths on a device.
		if prefix.Addr().Is6() && a.Prefix.Addr() == prefix.Addr() {
			if a.Protocol != p.owner.Protocol {
				p.fail(w.network, "address %q is on port %q as %q, which is not ours", prefix, w.Name, a.Prefix)
				return
			}
			needs = append(needs, p.step(w.network, DeleteAddress{Device: w.Name, Prefix: a.Prefix}, p.after(w.Name)))
			l.Addresses = slices.Delete(l.Addresses, i, i+1)
			break
		}
	}
	p.putAddress(w.network, l, Address{
		Prefix: prefix, Protocol: p.owner.Protocol, Valid: Forever, Preferred: Forever,
	}, needs)
}

// putAddress appends the step for an address of ours.
func (p *planner) putAddress(network string, l *modelLink, a Address, needs []int) {
	needs = append(needs, p.after(l.Name)...)
	i := p.step(network, PutAddress{Device: l.Name, Address: a}, needs)
	p.addresses[l.Name] = append(p.addresses[l.Name], i)
	l.Addresses = append(l.Addresses, a)
}

// after is the need for the latest step on a device.
func (p *planner) after(device string) []int {
	if i, ok := p.last[device]; ok {
		return []int{i}
	}
	return nil
}

// putBack restores what others had on a device before it was cycled. It needs no
// step: if the cycle failed, putting the address changes nothing.
func (p *planner) putBack(l *modelLink) {
	slices.SortFunc(l.flushed, func(a, b Address) int { return a.Prefix.Compare(b.Prefix) })
	for _, a := range l.flushed {
		if a.Protocol != p.owner.Protocol {
			p.step(p.deviceNetwork(l.Name), PutAddress{Device: l.Name, Address: a}, nil)
			l.Addresses = append(l.Addresses, a)
		}
	}
	l.flushed = nil
}

// release takes a port out of our VRF.
func (p *planner) release(l *modelLink) {
	p.deviceStep(l.Master, l.Name, SetMaster{Device: l.Name})
	l.Master = ""
	p.links.cycle(l)
}
