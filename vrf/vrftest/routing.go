package vrftest

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/egret-router/egret/vrf"
)

type routeKey struct {
	table  vrf.TableID
	prefix netip.Prefix
	metric uint32
}

func keyOf(r vrf.Route) routeKey { return routeKey{r.Table, r.Prefix, r.Metric} }

// do carries out one action as the kernel would.
func (k *Kernel) do(a vrf.Action) error {
	switch a := a.(type) {
	case vrf.AddVRF:
		// With net.vrf.strict_mode on, as the strictest kernel.
		if i := slices.IndexFunc(k.links, func(l vrf.Link) bool { return l.Kind == "vrf" && l.Table == a.Table }); i >= 0 {
			return fmt.Errorf("table %d is of %q: %w", a.Table, k.links[i].Name, syscall.EBUSY)
		}
		return k.addLink(vrf.Link{Name: a.Name, Kind: "vrf", Table: a.Table, Group: a.Group, MTU: 65575})
	case vrf.AddVLAN:
		return k.addVLAN(a)
	case vrf.AddTunnel:
		return k.addTunnel(a)
	case vrf.AddLoop:
		return k.addLoop(a)
	case vrf.SetMTU:
		return k.setMTU(a)
	case vrf.SetAlias:
		return k.setAlias(a)
	case vrf.SetMaster:
		return k.setMaster(a)
	case vrf.SetUp:
		return k.bringUp(a.Device)
	case vrf.DeleteLink:
		if k.link(a.Device) == nil {
			return fmt.Errorf("device %q: %w", a.Device, syscall.ENODEV)
		}
		k.deleteLink(a.Device)
		return nil
	case vrf.PutAddress:
		return k.putAddress(a)
	case vrf.DeleteAddress:
		return k.deleteAddress(a)
	case vrf.PutNextHop:
		return k.putNextHop(a)
	case vrf.PutGroup:
		return k.putGroup(a)
	case vrf.DeleteNextHop:
		return k.deleteNextHop(a.ID)
	case vrf.PutRoute:
		return k.putRoute(a)
	case vrf.DeleteRoute:
		return k.deleteRoute(a.Route)
	case vrf.AddRule:
		return k.addRule(a.Rule)
	case vrf.DeleteRule:
		return k.deleteRule(a.Rule)
	}
	return fmt.Errorf("action %T: %w", a, syscall.EOPNOTSUPP)
}

func (k *Kernel) hop(id vrf.NextHopID) *vrf.RawNextHop {
	i := slices.IndexFunc(k.nextHops, func(n vrf.RawNextHop) bool { return n.ID == id })
	if i < 0 {
		return nil
	}
	return &k.nextHops[i]
}

func (k *Kernel) group(id vrf.NextHopID) *vrf.RawGroup {
	i := slices.IndexFunc(k.groups, func(g vrf.RawGroup) bool { return g.ID == id })
	if i < 0 {
		return nil
	}
	return &k.groups[i]
}

func (k *Kernel) putNextHop(a vrf.PutNextHop) error {
	old := k.hop(a.NextHop.ID)
	if k.group(a.NextHop.ID) != nil {
		return fmt.Errorf("next hop %d is a group: %w", a.NextHop.ID, syscall.EINVAL)
	}
	if old != nil && !a.Replace {
		return fmt.Errorf("next hop %d: %w", a.NextHop.ID, syscall.EEXIST)
	}
	if err := k.checkHop(a.NextHop); err != nil {
		return err
	}
	raw := vrf.RawNextHop{NextHop: a.NextHop, Protocol: k.owner.Protocol}
	if old != nil {
		*old = raw
		return nil
	}
	k.nextHops = append(k.nextHops, raw)
	return nil
}

// checkHop refuses what the kernel refuses: a device that is down or without
// carrier, and a gateway that is on none of its subnets.
func (k *Kernel) checkHop(n vrf.NextHop) error {
	if n.Blackhole {
		return nil
	}
	l := k.link(n.Device)
	switch {
	case l == nil:
		return fmt.Errorf("device %q: %w", n.Device, syscall.ENODEV)
	case !k.running(*l):
		return fmt.Errorf("device %q: %w", n.Device, syscall.ENETDOWN)
	case !n.Gateway.IsValid() || n.OnLink || n.Gateway.IsLinkLocalUnicast():
		return nil
	}
	for _, a := range l.Addresses {
		if a.Prefix.Contains(n.Gateway) || a.Peer.Contains(n.Gateway) {
			return nil
		}
	}
	return fmt.Errorf("gateway %q on %q: %w", n.Gateway, n.Device, syscall.EHOSTUNREACH)
}

func (k *Kernel) putGroup(a vrf.PutGroup) error {
	id := a.Group.ID
	old := k.group(id)
	switch {
	case k.hop(id) != nil:
		return fmt.Errorf("group %d is a next hop: %w", id, syscall.EINVAL)
	case old != nil && !a.Replace:
		return fmt.Errorf("group %d: %w", id, syscall.EEXIST)
	case old != nil && old.Resilient.Buckets != a.Group.Resilient.Buckets:
		return fmt.Errorf("group %d is of another kind or size: %w", id, syscall.EINVAL)
	case len(a.Group.Members) == 0:
		return fmt.Errorf("group %d is empty: %w", id, syscall.EINVAL)
	}
	seen := map[vrf.NextHopID]bool{}
	for _, m := range a.Group.Members {
		n := k.hop(m.ID)
		if n == nil || seen[m.ID] || (n.Blackhole && len(a.Group.Members) > 1) || m.Weight < 1 || m.Weight > 255 {
			return fmt.Errorf("member %d of group %d: %w", m.ID, id, syscall.EINVAL)
		}
		if !n.IPv6 && k.hasIPv6Routes(id) {
			return fmt.Errorf("ipv4 member %d under ipv6 routes: %w", m.ID, syscall.EINVAL)
		}
		seen[m.ID] = true
	}
	raw := vrf.RawGroup{Group: vrf.Group{ID: id, Members: slices.Clone(a.Group.Members), Resilient: a.Group.Resilient}, Protocol: k.owner.Protocol}
	if old != nil {
		*old = raw
		return nil
	}
	k.groups = append(k.groups, raw)
	return nil
}

func (k *Kernel) hasIPv6Routes(id vrf.NextHopID) bool {
	for _, r := range k.routes {
		if r.NextHop == id && r.Prefix.Addr().Is6() {
			return true
		}
	}
	return false
}

func (k *Kernel) deleteNextHop(id vrf.NextHopID) error {
	if k.hop(id) == nil && k.group(id) == nil {
		return fmt.Errorf("next hop %d: %w", id, syscall.ENOENT)
	}
	k.dropHops(map[vrf.NextHopID]bool{id: true})
	return nil
}

// dropHopsOn drops the next hops on a device.
func (k *Kernel) dropHopsOn(device string) {
	gone := map[vrf.NextHopID]bool{}
	for _, n := range k.nextHops {
		if n.Device == device {
			gone[n.ID] = true
		}
	}
	if len(gone) > 0 {
		k.dropHops(gone)
	}
}

// dropHops deletes next hops or groups: groups lose their members, a group
// without members goes, and so does every route that used one of them.
func (k *Kernel) dropHops(gone map[vrf.NextHopID]bool) {
	k.nextHops = slices.DeleteFunc(k.nextHops, func(n vrf.RawNextHop) bool { return gone[n.ID] })
	k.groups = slices.DeleteFunc(k.groups, func(g vrf.RawGroup) bool { return gone[g.ID] })
	for i := range k.groups {
		k.groups[i].Members = slices.DeleteFunc(k.groups[i].Members, func(m vrf.Member) bool { return gone[m.ID] })
		if len(k.groups[i].Members) == 0 {
			gone[k.groups[i].ID] = true
		}
	}
	k.groups = slices.DeleteFunc(k.groups, func(g vrf.RawGroup) bool { return gone[g.ID] })
	for key, r := range k.routes {
		if gone[r.NextHop] {
			delete(k.routes, key)
		}
	}
}

// putRoute follows the kernel in replacing whatever has the key, of whomever.
func (k *Kernel) putRoute(a vrf.PutRoute) error {
	r := a.Route
	if _, exists := k.routes[keyOf(r)]; exists && !a.Replace {
		return fmt.Errorf("route %q: %w", r, syscall.EEXIST)
	}
	if (r.Type == vrf.Unicast) != (r.NextHop != 0) {
		return fmt.Errorf("route %q: %w", r, syscall.EINVAL)
	}
	if r.NextHop != 0 {
		if err := k.checkRouteHop(r); err != nil {
			return err
		}
	}
	protocol := k.owner.Protocol
	if r.Learned {
		protocol = k.owner.LearnedProtocol
	}
	k.routes[keyOf(r)] = vrf.RawRoute{Route: r, Protocol: protocol}
	return nil
}

func (k *Kernel) checkRouteHop(r vrf.Route) error {
	members := []vrf.Member{{ID: r.NextHop}}
	if g := k.group(r.NextHop); g != nil {
		members = g.Members
	}
	for _, m := range members {
		n := k.hop(m.ID)
		if n == nil || (r.Prefix.Addr().Is6() && !n.IPv6) {
			return fmt.Errorf("next hop %d of route %q: %w", m.ID, r, syscall.EINVAL)
		}
	}
	return nil
}

func (k *Kernel) deleteRoute(r vrf.Route) error {
	protocol := k.owner.Protocol
	if r.Learned {
		protocol = k.owner.LearnedProtocol
	}
	if old, ok := k.routes[keyOf(r)]; !ok || old.Protocol != protocol {
		return fmt.Errorf("route %q: %w", r, syscall.ESRCH)
	}
	delete(k.routes, keyOf(r))
	return nil
}

func (k *Kernel) addRule(r vrf.Rule) error {
	if r.Action == vrf.RuleGoto && r.Target <= r.Priority {
		return fmt.Errorf("rule %q leads backwards: %w", r, syscall.EINVAL)
	}
	k.rules = append(k.rules, vrf.RawRule{Rule: r, Protocol: k.owner.Protocol})
	return nil
}

// deleteRule deletes the first rule that fits, as the kernel does: it does not look
// at the target of a goto, nor at a table, mark or mask of 0 in the request.
func (k *Kernel) deleteRule(r vrf.Rule) error {
	i := slices.IndexFunc(k.rules, func(o vrf.RawRule) bool {
		return o.Protocol == k.owner.Protocol && o.IPv6 == r.IPv6 && o.Priority == r.Priority && o.Action == r.Action &&
			(r.Table == 0 || o.Table == r.Table) && (r.Mark == 0 || o.Mark == r.Mark) && (r.Mask == 0 || o.Mask == r.Mask)
	})
	if i < 0 {
		return fmt.Errorf("rule %q: %w", r, syscall.ENOENT)
	}
	k.rules = slices.Delete(k.rules, i, i+1)
	return nil
}

// rawRules lists the rules, and says which gotos have no target.
func (k *Kernel) rawRules() []vrf.RawRule {
	type place struct {
		priority uint32
		ipv6     bool
	}
	there := map[place]bool{}
	for _, r := range k.rules {
		there[place{r.Priority, r.IPv6}] = true
	}
	rules := slices.Clone(k.rules)
	for i, r := range rules {
		rules[i].Unresolved = r.Action == vrf.RuleGoto && !there[place{r.Target, r.IPv6}]
	}
	return rules
}
