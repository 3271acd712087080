package vrf

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// loseHops works out which next hops and groups of ours the kernel has left after
// the link steps.
func (p *planner) loseHops() {
	p.hopsLeft = map[NextHopID]NextHop{}
	lost := map[NextHopID]bool{}
	for _, n := range p.have.Config.NextHops {
		l, known := p.links[n.Device]
		if !n.Blackhole && (!known || l.cycled) {
			lost[n.ID] = true
			continue
		}
		p.hopsLeft[n.ID] = n
	}
	p.groupsLeft = map[NextHopID]Group{}
	for _, g := range p.have.Config.Groups {
		g.Members = slices.DeleteFunc(slices.Clone(g.Members), func(m Member) bool { return lost[m.ID] })
		if len(g.Members) > 0 {
			p.groupsLeft[g.ID] = g
		}
	}
}

// putNextHops adds the missing next hops.
func (p *planner) putNextHops() {
	p.loseHops()
	had := map[NextHopID]bool{}
	for _, n := range p.have.Config.NextHops {
		had[n.ID] = true
	}
	for _, id := range slices.Sorted(maps.Keys(p.hops)) {
		n := p.hops[id]
		network := p.hopNetwork(n)
		if p.blocked[network] || p.blockedPort[n.Device] {
			continue // the reason is told already
		}
		if err := p.checkHop(n); err != nil {
			p.fail(network, "next hop %q: %w", n.String(), err)
			continue
		}
		if old, ok := p.hopsLeft[id]; ok && old == n {
			p.hopStep[id] = -1
			continue
		}
		i := p.step(network, PutNextHop{NextHop: n, Replace: had[id]}, p.hopNeeds(n))
		p.hopStep[id] = i
		p.unblocks[network] = append(p.unblocks[network], i)
	}
}

// hopNeeds are the steps on the device, and on its addresses of the same family:
// the kernel checks that the gateway is on a connected prefix.
func (p *planner) hopNeeds(n NextHop) []int {
	needs := p.after(n.Device)
	for _, i := range p.addresses[n.Device] {
		a, ok := p.plan.Ops[i].Action.(PutAddress)
		if ok && n.Gateway.IsValid() && a.Address.Prefix.Contains(n.Gateway) {
			needs = append(needs, i)
		}
	}
	return needs
}

func (p *planner) checkID(id NextHopID) error {
	if id == 0 || !p.owner.NextHopIDs.Contains(uint32(id)) {
		return fmt.Errorf("the id is not in %#x-%#x", p.owner.NextHopIDs.First, p.owner.NextHopIDs.Last)
	}
	if p.foreignHop[id] {
		return fmt.Errorf("the id is taken by an object that is not ours")
	}
	return nil
}

func (p *planner) checkHop(n NextHop) error {
	if err := p.checkID(n.ID); err != nil {
		return err
	}
	if _, ok := p.groupsLeft[n.ID]; ok {
		return fmt.Errorf("the id is a group's")
	}
	if n.Blackhole {
		return nil
	}
	l, ok := p.links.get(n.Device)
	_, wanted := p.portByName[n.Device]
	_, isVRF := p.vrfByName[n.Device]
	switch {
	case !ok:
		return fmt.Errorf("device %q does not exist", n.Device)
	case !wanted && !isVRF && !p.wantsTunnel(n.Device) && (p.owner.ownsVLAN(l.Link) || p.owner.ownsVRF(l.Link) || p.owner.ownsDevice(l.Link)):
		return fmt.Errorf("device %q is going away", n.Device)
	case n.Tunnel.Endpoint.IsValid() && l.Kind != "vxlan":
		return fmt.Errorf("device %q is no tunnel", n.Device)
	case n.Tunnel.Endpoint.IsValid() && n.Tunnel.check() != "":
		return errors.New(n.Tunnel.check())
	case !l.Up:
		return fmt.Errorf("device %q is down", n.Device)
	case !l.Carrier && !l.fresh:
		return fmt.Errorf("device %q has no carrier", n.Device)
	}
	return nil
}

// putGroups adds missing groups and replaces changed ones, each in one message.
func (p *planner) putGroups() {
	p.groupNet = p.groupNetworks()
	had := map[NextHopID]bool{}
	for _, g := range p.have.Config.Groups {
		had[g.ID] = true
	}
	for _, id := range slices.Sorted(maps.Keys(p.groups)) {
		g := p.groups[id]
		network := p.groupNet[id]
		old, exists := p.groupsLeft[id]
		ready, err := p.checkGroup(g)
		if err != nil {
			p.fail(network, "group %s: %w", hopID(id), err)
		}
		if err != nil || !ready || p.blocked[network] {
			if exists {
				p.groupStep[id] = -1 // stays as it is, and routes may use it
				p.keepMembers(old)
			}
			continue
		}
		if exists && slices.Equal(old.Members, g.Members) && old.Resilient.like(g.Resilient) {
			p.groupStep[id] = -1
			continue
		}
		needs, replace := p.groupNeeds(g), had[id]
		if exists && old.Resilient.Buckets != g.Resilient.Buckets {
			needs, replace = append(needs, p.dropGroup(old, needs)), false
		}
		i := p.step(network, PutGroup{Group: g, Replace: replace}, needs)
		p.groupStep[id] = i
		p.unblocks[network] = append(p.unblocks[network], i)
		for _, m := range old.Members {
			p.movedOff[m.ID] = append(p.movedOff[m.ID], i)
		}
	}
}

// dropGroup deletes a group that cannot become what is wanted under its id: the kernel
// changes neither the kind of a group nor its number of buckets. The routes go with it
// and are put again behind it; until then their traffic meets the fallback. An id that
// follows from the kind and the buckets (see GroupIDFor) never comes to this.
func (p *planner) dropGroup(g Group, needs []int) int {
	delete(p.groupsLeft, g.ID)
	return p.step(p.groupNet[g.ID], DeleteNextHop{ID: g.ID, Group: true}, needs)
}

// like says that the kernel shows r for o: it counts timers in its own ticks and may
// show one clock tick less.
func (r Resilient) like(o Resilient) bool {
	return r.Buckets == o.Buckets && (r.IdleTimer-o.IdleTimer).Abs() < 2*clockTick &&
		(r.UnbalancedTimer-o.UnbalancedTimer).Abs() < 2*clockTick
}

// check says why the kernel could not have r.
func (r Resilient) check() error {
	for _, d := range []time.Duration{r.IdleTimer, r.UnbalancedTimer} {
		if d < 0 || d/clockTick > math.MaxUint32 {
			return fmt.Errorf("a timer of %v", d)
		}
	}
	return nil
}

// keepMembers protects the members of a group that could not be brought to its
// wanted content from being deleted under it.
func (p *planner) keepMembers(g Group) {
	for _, m := range g.Members {
		p.stillInUse[m.ID] = true
	}
}

func (p *planner) groupNeeds(g Group) (needs []int) {
	for _, m := range g.Members {
		if i := p.hopStep[m.ID]; i >= 0 {
			needs = append(needs, i)
		}
	}
	return needs
}

// checkGroup says why a group can never be, or that it is not ready because a
// member could not be had, which has been told already.
func (p *planner) checkGroup(g Group) (ready bool, err error) {
	if err := p.checkID(g.ID); err != nil {
		return false, err
	}
	if _, ok := p.hopsLeft[g.ID]; ok {
		return false, fmt.Errorf("the id is a next hop's")
	}
	if len(g.Members) == 0 {
		return false, fmt.Errorf("no members")
	}
	if err := g.Resilient.check(); err != nil {
		return false, err
	}
	ready = true
	seen := map[NextHopID]bool{}
	for _, m := range g.Members {
		n, wanted := p.hops[m.ID]
		switch {
		case !wanted:
			return false, fmt.Errorf("member %s is not wanted itself", hopID(m.ID))
		case seen[m.ID]:
			return false, fmt.Errorf("member %s is twice in it", hopID(m.ID))
		case n.Blackhole && len(g.Members) > 1:
			return false, fmt.Errorf("blackhole %s is not alone", hopID(m.ID))
		case m.Weight < 1 || m.Weight > 255:
			return false, fmt.Errorf("weight %d of member %s is not 1 to 255", m.Weight, hopID(m.ID))
		}
		seen[m.ID] = true
		if _, ok := p.hopStep[m.ID]; !ok {
			ready = false
		}
	}
	return ready, nil
}

// groupNetworks finds the network of every group: that of the routes that use
// it, else that of its members.
func (p *planner) groupNetworks() map[NextHopID]string {
	out := map[NextHopID]string{}
	set := func(id NextHopID, network string) {
		if old, ok := out[id]; network != "" && (!ok || network < old) {
			out[id] = network
		}
	}
	last := routePair{}
	for _, routes := range [][]Route{p.routes, p.have.Config.Routes} {
		for _, r := range routes {
			pair := routePair{r.Table, r.NextHop}
			if pair == last {
				continue // as most routes of a table
			}
			last = pair
			set(r.NextHop, p.networkOf[r.Table])
		}
	}
	for _, g := range slices.Concat(p.have.Config.Groups, slices.Collect(maps.Values(p.groups))) {
		if _, ok := out[g.ID]; ok {
			continue
		}
		networks := []string{}
		for _, m := range g.Members {
			if n, ok := p.hops[m.ID]; ok {
				networks = append(networks, p.hopNetwork(n))
			}
		}
		if len(networks) > 0 {
			out[g.ID] = slices.Min(networks)
		}
	}
	return out
}

// removeGroups deletes the groups that nothing wanted uses.
func (p *planner) removeGroups() {
	for _, g := range p.sortedLeft() {
		if _, wanted := p.groups[g.ID]; wanted {
			continue
		}
		if p.stillInUse[g.ID] {
			p.keepMembers(g)
			continue
		}
		i := p.step(p.groupNet[g.ID], DeleteNextHop{ID: g.ID, Group: true}, p.movedOff[g.ID])
		for _, m := range g.Members {
			p.movedOff[m.ID] = append(p.movedOff[m.ID], i)
		}
	}
}

func (p *planner) sortedLeft() []Group {
	return slices.SortedFunc(maps.Values(p.groupsLeft), func(a, b Group) int { return cmp.Compare(a.ID, b.ID) })
}

// removeNextHops deletes the next hops that nothing wanted uses.
func (p *planner) removeNextHops() {
	for _, id := range slices.Sorted(maps.Keys(p.hopsLeft)) {
		if _, wanted := p.hops[id]; wanted || p.stillInUse[id] {
			continue
		}
		p.step(p.hopNetwork(p.hopsLeft[id]), DeleteNextHop{ID: id}, p.movedOff[id])
	}
}
