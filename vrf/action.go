package vrf

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Action is one change of the kernel, which Kernel.Apply carries out as one
// netlink message (SetAlias: two). Its String is the ip(8) command that does the
// same, as far as ip(8) can. The set of actions is closed.
type Action interface {
	String() string
	action()
}

// AddVRF creates a VRF device in a device group that marks it as not yet named.
type AddVRF struct {
	Name  string
	Table TableID
	Group uint32
}

// AddVLAN creates an 802.1Q device in a device group, see AddVRF.
type AddVLAN struct {
	Name  string
	VLAN  VLAN
	Group uint32
}

// AddTunnel creates a TunnelDevice in a device group, see AddVRF.
type AddTunnel struct {
	TunnelDevice
	Group uint32
}

// AddLoop creates both ends of a Loop in a device group, see AddVRF.
type AddLoop struct {
	Loop
	Group uint32
}

// SetMTU changes the MTU of a device of ours.
type SetMTU struct {
	Device string
	MTU    int
}

// SetAlias names a device as ours and puts it back into the default group.
type SetAlias struct{ Device, Alias string }

// SetMaster enslaves a device to a VRF, or releases it when Master is "". The
// kernel takes a device that is up down and up again for it.
type SetMaster struct{ Device, Master string }

// SetUp brings a device up.
type SetUp struct{ Device string }

// DeleteLink deletes a device of ours. A VRF releases its ports, an end of a loop
// takes the other along.
type DeleteLink struct{ Device string }

// PutAddress adds an address or brings an existing one to these attributes.
type PutAddress struct {
	Device  string
	Address Address
}

// DeleteAddress deletes an address of ours.
type DeleteAddress struct {
	Device string
	Prefix netip.Prefix
}

// PutNextHop adds a single next hop, or with Replace changes the one that has
// its id.
type PutNextHop struct {
	NextHop NextHop
	Replace bool
}

// DeleteNextHop deletes a single next hop or, with Group, a group. The kernel
// then also deletes every route that uses it.
type DeleteNextHop struct {
	ID    NextHopID
	Group bool
}

// PutGroup adds a group, or with Replace changes its members in one message
// that every route using it follows at once.
type PutGroup struct {
	Group   Group
	Replace bool
}

// PutRoute adds a route, or with Replace changes the one of ours that has its key.
type PutRoute struct {
	Route   Route
	Replace bool
}

// DeleteRoute deletes a route of ours.
type DeleteRoute struct{ Route Route }

// AddRule adds a policy rule.
type AddRule struct{ Rule Rule }

// DeleteRule deletes a policy rule of ours.
type DeleteRule struct{ Rule Rule }

func (AddVRF) action()        {}
func (AddVLAN) action()       {}
func (AddTunnel) action()     {}
func (AddLoop) action()       {}
func (SetMTU) action()        {}
func (SetAlias) action()      {}
func (SetMaster) action()     {}
func (SetUp) action()         {}
func (DeleteLink) action()    {}
func (PutAddress) action()    {}
func (DeleteAddress) action() {}
func (PutNextHop) action()    {}
func (DeleteNextHop) action() {}
func (PutGroup) action()      {}
func (PutRoute) action()      {}
func (DeleteRoute) action()   {}
func (AddRule) action()       {}
func (DeleteRule) action()    {}

func (a AddVRF) String() string {
	return fmt.Sprintf("ip link add %s type vrf table %d", a.Name, a.Table)
}

func (a AddVLAN) String() string {
	return fmt.Sprintf("ip link add link %s name %s type vlan id %d", a.VLAN.Parent, a.Name, a.VLAN.ID)
}

func (a AddTunnel) String() string {
	return fmt.Sprintf("ip link add %s%s type vxlan external gpe dstport %d nolearning udp6zerocsumrx", a.Name, mtuText(a.MTU), a.Port)
}

func (a AddLoop) String() string {
	return fmt.Sprintf("ip link add %s%s address %s arp off type veth peer name %s%s address %s arp off",
		a.Name, mtuText(a.MTU), loopMAC, a.Peer, mtuText(a.MTU), loopMAC)
}

func (a SetMTU) String() string { return "ip link set " + a.Device + mtuText(a.MTU) }

func mtuText(mtu int) string {
	if mtu == 0 {
		return ""
	}
	return " mtu " + strconv.Itoa(mtu)
}

func (a SetAlias) String() string {
	return fmt.Sprintf("ip link set %s alias %s", a.Device, a.Alias)
}

func (a SetMaster) String() string {
	if a.Master == "" {
		return "ip link set " + a.Device + " nomaster"
	}
	return "ip link set " + a.Device + " master " + a.Master
}

func (a SetUp) String() string { return "ip link set " + a.Device + " up" }

func (a DeleteLink) String() string { return "ip link del " + a.Device }

func (a PutAddress) String() string {
	s := "ip addr replace " + a.Address.Prefix.String()
	if a.Address.Peer.IsValid() {
		s = "ip addr replace " + a.Address.Prefix.Addr().String() + " peer " + a.Address.Peer.String()
	}
	s += " dev " + a.Device
	if a.Address.Protocol != 0 {
		s += " proto " + strconv.Itoa(int(a.Address.Protocol))
	}
	return s
}

func (a DeleteAddress) String() string {
	return "ip addr del " + a.Prefix.String() + " dev " + a.Device
}

func (a PutNextHop) String() string {
	return "ip nexthop " + addOrReplace(a.Replace) + " " + a.NextHop.String()
}

func (a DeleteNextHop) String() string { return "ip nexthop del id " + hopID(a.ID) }

func (a PutGroup) String() string {
	return "ip nexthop " + addOrReplace(a.Replace) + " " + a.Group.String()
}

func (a PutRoute) String() string {
	return "ip" + dash6(a.Route.Prefix.Addr().Is6()) + " route " + addOrReplace(a.Replace) + " " + a.Route.String()
}

func (a DeleteRoute) String() string {
	return "ip" + dash6(a.Route.Prefix.Addr().Is6()) + " route del " + a.Route.String()
}

func (a AddRule) String() string {
	return "ip" + dash6(a.Rule.IPv6) + " rule add " + a.Rule.String()
}

func (a DeleteRule) String() string {
	return "ip" + dash6(a.Rule.IPv6) + " rule del " + a.Rule.String()
}

func addOrReplace(replace bool) string {
	if replace {
		return "replace"
	}
	return "add"
}

func dash6(ipv6 bool) string {
	if ipv6 {
		return " -6"
	}
	return ""
}

// hopID prints ids in hex: they are hashes within a range that is easily
// recognised in hex only.
func hopID(id NextHopID) string { return "0x" + strconv.FormatUint(uint64(id), 16) }

// String is the next hop as ip(8) takes it.
func (n NextHop) String() string {
	s := "id " + hopID(n.ID)
	switch {
	case n.Blackhole && n.IPv6:
		return s + " blackhole -6"
	case n.Blackhole:
		return s + " blackhole"
	case n.Gateway.IsValid():
		s += " via " + n.Gateway.String()
	}
	if n.Tunnel.Endpoint.IsValid() {
		s += " " + n.Tunnel.String()
	}
	s += " dev " + n.Device
	if n.OnLink {
		s += " onlink"
	}
	if n.IPv6 && !n.Gateway.IsValid() {
		s += " -6"
	}
	return s
}

// String is the group as ip(8) takes it: members with their weights unless 1.
func (g Group) String() string {
	var b strings.Builder
	b.WriteString("id " + hopID(g.ID) + " group ")
	for i, m := range g.Members {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(hopID(m.ID))
		if m.Weight != 1 {
			b.WriteString("," + strconv.Itoa(int(m.Weight)))
		}
	}
	if r := g.Resilient; r.Buckets > 0 {
		fmt.Fprintf(&b, " type resilient buckets %d idle_timer %g unbalanced_timer %g",
			r.Buckets, r.IdleTimer.Seconds(), r.UnbalancedTimer.Seconds())
	}
	return b.String()
}

// String is the route as ip(8) takes it.
func (r Route) String() string {
	b := make([]byte, 0, 96)
	switch r.Type {
	case Unicast:
	case Blackhole:
		b = append(b, "blackhole "...)
	case Unreachable:
		b = append(b, "unreachable "...)
	case Prohibit:
		b = append(b, "prohibit "...)
	default:
		b = append(b, "type "+strconv.Itoa(int(r.Type))+" "...)
	}
	if r.Prefix.Bits() == 0 && r.Prefix.Addr().Is4() {
		b = append(b, "default"...)
	} else {
		b = r.Prefix.AppendTo(b)
	}
	if r.NextHop != 0 {
		b = append(b, " nhid "+hopID(r.NextHop)...)
	}
	b = append(b, " table "...)
	b = strconv.AppendUint(b, uint64(r.Table), 10)
	if r.Metric != 0 {
		b = append(b, " metric "...)
		b = strconv.AppendUint(b, uint64(r.Metric), 10)
	}
	if r.Learned {
		b = append(b, " learned"...)
	}
	return string(b)
}

// String is the rule as ip(8) takes it.
func (r Rule) String() string {
	s := fmt.Sprintf("pref %d fwmark %#x/%#x ", r.Priority, uint32(r.Mark), uint32(r.Mask))
	switch r.Action {
	case RuleLookup:
		return s + "lookup " + strconv.FormatUint(uint64(r.Table), 10)
	case RuleGoto:
		return s + "goto " + strconv.FormatUint(uint64(r.Target), 10)
	case RuleBlackhole:
		return s + "blackhole"
	case RuleUnreachable:
		return s + "unreachable"
	case RuleProhibit:
		return s + "prohibit"
	}
	return s + "action " + strconv.Itoa(int(r.Action))
}
