package vrf

import (
	"maps"
	"slices"
)

// modelLink is a link as it will be after the steps planned so far.
type modelLink struct {
	Link
	// fresh says that the carrier is unknown: the device has just been created
	// or brought up, so it is given the benefit of the doubt.
	fresh bool
	// cycled says that the device was taken down in between, or is gone: the
	// kernel has dropped every next hop on it.
	cycled bool
	gone   bool
	// flushed are the addresses of others that went and have to be put back.
	flushed []Address
}

// linkModel is what the planner believes about the links, by name.
type linkModel map[string]*modelLink

func newLinkModel(links []Link) linkModel {
	m := make(linkModel, len(links))
	for _, l := range links {
		l.Addresses = slices.Clone(l.Addresses)
		m[l.Name] = &modelLink{Link: l}
	}
	return m
}

// names of the links that exist, sorted.
func (m linkModel) names() []string {
	names := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !m[name].gone {
			names = append(names, name)
		}
	}
	return names
}

// get finds a link that exists.
func (m linkModel) get(name string) (*modelLink, bool) {
	l, ok := m[name]
	if !ok || l.gone {
		return nil, false
	}
	return l, true
}

// add puts a new link into the model.
func (m linkModel) add(l Link) *modelLink {
	cycled := false
	if old, ok := m[l.Name]; ok {
		cycled = old.cycled
	}
	m[l.Name] = &modelLink{Link: l, fresh: true, cycled: cycled}
	return m[l.Name]
}

// remove deletes a link: a VRF releases its ports, a parent takes its VLANs along, an
// end of a veth pair the other.
func (m linkModel) remove(name string) {
	l, ok := m.get(name)
	if !ok {
		return
	}
	l.gone, l.cycled = true, true
	for _, other := range m.names() {
		o := m[other]
		if o.Master == name {
			o.Master = ""
			m.cycle(o)
		}
		if (o.Kind == "vlan" || o.Kind == "veth") && o.Parent == name {
			m.remove(other)
		}
	}
}

// cycle models "down and up again", which a device that is up goes through when
// its master changes: IPv6 addresses go (keep_addr_on_down may save them; putting
// them again does no harm), next hops go, and the VLANs on it follow. The kernel
// also drops the routes of others through it; those are theirs to put back.
func (m linkModel) cycle(l *modelLink) {
	if !l.Up {
		return
	}
	l.cycled = true
	var kept []Address
	for _, a := range l.Addresses {
		switch {
		case a.Prefix.Addr().Is4():
			kept = append(kept, a)
		case a.restorable():
			l.flushed = append(l.flushed, a)
		}
	}
	l.Addresses = kept
	for _, name := range m.names() {
		if child := m[name]; child.Kind == "vlan" && child.Parent == l.Name {
			m.cycle(child)
		}
	}
}

// checkVRFs finds the VRFs that cannot be because others are in their place.
func (p *planner) checkVRFs() {
	tableOf := map[TableID]string{} // VRF devices of others
	for _, name := range p.links.names() {
		if l := p.links[name]; l.Kind == "vrf" && !p.owner.ownsVRF(l.Link) {
			tableOf[l.Table] = name
		}
	}
	for _, v := range p.vrfs {
		if l, ok := p.links.get(v.Name); ok && !p.owner.ownsVRF(l.Link) && !p.owner.ownsVLAN(l.Link) && !p.owner.ownsDevice(l.Link) {
			p.fail(v.Name, "device %q exists and is not ours", v.Name)
			p.blocked[v.Name] = true
		}
		for _, table := range append(slices.Clone(v.Tables), v.Table) {
			if other, ok := tableOf[table]; ok && other != v.Name {
				p.fail(v.Name, "table %d belongs to VRF %q, which is not ours", table, other)
				p.blocked[v.Name] = true
			}
		}
	}
}

// evict removes early what of ours is in the way of what is wanted. Everything
// else that is no longer wanted goes at the end.
func (p *planner) evict() {
	room := p.wantedRoom()
	carries := map[string]bool{} // devices with wanted next hops or VLANs
	for _, n := range p.hops {
		carries[n.Device] = true
	}
	for _, w := range p.ports {
		if w.VLAN != nil {
			carries[w.VLAN.Parent] = true
		}
	}
	for _, name := range p.links.names() {
		l, ok := p.links.get(name)
		if !ok {
			continue // went with its parent
		}
		needs := p.inTheWay(l.Link, room)
		if len(needs) > 0 {
			i := p.deviceStep(name, name, DeleteLink{Device: name})
			p.links.remove(name)
			for _, key := range needs {
				p.cleared[key] = i
			}
			continue
		}
		// Releasing a port drops the next hops on it and on its VLANs: when some
		// of those are wanted, it cannot wait until the end.
		if _, wanted := p.portByName[name]; !wanted && carries[name] && p.ourPort(l) {
			p.release(l)
		}
	}
}

// wantedRoom lists what the wanted VRFs and VLANs need to have for themselves,
// with the device that may have it.
func (p *planner) wantedRoom() map[string]string {
	room := map[string]string{}
	for _, v := range p.vrfs {
		if !p.blocked[v.Name] {
			room[nameKey(v.Name)] = tableKey(v.Table)
			room[tableKey(v.Table)] = v.Name
		}
	}
	for _, w := range p.ports {
		if w.VLAN != nil && !p.blocked[w.network] {
			room[nameKey(w.Name)] = vlanKey(*w.VLAN)
			room[vlanKey(*w.VLAN)] = w.Name
		}
	}
	p.roomForTunnels(room)
	return room
}

// inTheWay says which wanted things a device of ours keeps from being.
func (p *planner) inTheWay(l Link, room map[string]string) (keys []string) {
	var is string
	switch {
	case p.owner.ownsVRF(l):
		is = tableKey(l.Table)
	case p.owner.ownsVLAN(l):
		is = vlanKey(VLAN{Parent: l.Parent, ID: l.VLANID})
	case p.owner.ownsDevice(l):
		is = p.tunnelIs(l)
	default:
		return nil
	}
	if p.blocked[l.Name] || p.blocked[p.portByName[l.Name].network] {
		return nil
	}
	if should, ok := room[nameKey(l.Name)]; ok && should != is {
		keys = append(keys, nameKey(l.Name))
	}
	if should, ok := room[is]; ok && should != l.Name {
		keys = append(keys, is)
	}
	return keys
}
