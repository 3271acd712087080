package vrf

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Link is one network device of the namespace, ours or not.
type Link struct {
	Name  string
	Index int
	// Kind is IFLA_INFO_KIND ("vrf", "vlan", "veth"), "" for hardware and lo.
	Kind string
	// Master is the name of the device this one is enslaved to, or "".
	Master string
	// Up is IFF_UP: the administrator's wish.
	Up bool
	// Carrier is IFF_LOWER_UP. The kernel clears it on every device that is down.
	Carrier bool
	Alias   string
	// Group is the device group (IFLA_GROUP). It marks a device of ours between
	// its creation and its alias, which are two messages.
	Group uint32
	// MTU in bytes.
	MTU int
	// Table of a VRF device, else 0.
	Table TableID
	// Parent and VLANID of a VLAN device; of a veth, Parent is the other end. It is ""
	// when that lives in another namespace.
	Parent string
	VLANID uint16
	// NoARP is IFF_NOARP. Port is the UDP port of a VXLAN device, GPE says that it is
	// one as TunnelDevice describes. MAC is the address of a veth, as text.
	NoARP     bool
	Port      uint16
	GPE       bool
	MAC       string
	Addresses []Address
}

// Address is one address of a link as the kernel reports it.
type Address struct {
	Prefix netip.Prefix
	// Peer is the other end of a point-to-point address, else invalid.
	Peer netip.Prefix
	// Protocol is IFA_PROTO (kernel 5.18).
	Protocol uint8
	// Flags are IFA_F_*.
	Flags uint32
	Scope uint8
	// Metric is IFA_RT_PRIORITY, of the prefix route.
	Metric uint32
	// Label and Broadcast exist in IPv4 only.
	Label     string
	Broadcast netip.Addr
	// Valid and Preferred are lifetimes in seconds; Forever never ends.
	Valid, Preferred uint32
}

// Forever is the lifetime of an address that does not expire.
const Forever uint32 = 0xffffffff

// The IFA_F_* and IFA_PROTO values that the planner has to understand
// (linux/if_addr.h).
const (
	addrSecondary  = 0x01 // IPv4; the same bit is IFA_F_TEMPORARY in IPv6
	addrTemporary  = 0x01
	protoRouterAdv = 2 // IFAPROT_KERNEL_RA
	protoLinkLocal = 3 // IFAPROT_KERNEL_LL
)

// restorable says that the kernel does not come up with a by itself after
// flushing it: not its own link-local address, nor one from an advertisement.
func (a Address) restorable() bool {
	if a.Protocol == protoLinkLocal || a.Protocol == protoRouterAdv {
		return false
	}
	return a.Flags&addrTemporary == 0
}

// Snapshot is what a kernel has, seen by one Owner.
type Snapshot struct {
	Owner Owner
	// Links is every link of the namespace.
	Links []Link
	// Config is what is ours. A VRF lists every port that is enslaved to it, and
	// a port only those addresses that carry our protocol.
	Config Config
	// Unresolved are those rules of Config that jump to where no rule is: the
	// kernel skips them.
	Unresolved []Rule
	// Foreign is what others have where our objects go.
	Foreign Foreign
}

// Foreign is what belongs to others and may be in our way.
type Foreign struct {
	// NextHops are the foreign ids within Owner.NextHopIDs.
	NextHops []NextHopID
	// Routes are the foreign routes in our tables: those of our VRFs, and others
	// that hold routes of ours or that a rule of ours looks up.
	Routes []Route
	// Rules are the foreign rules within Owner.RulePriorities. Their selectors
	// other than the mark are not told.
	Rules []Rule
}

// Link finds a link by name.
func (s Snapshot) Link(name string) (Link, bool) {
	i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return s.Links[i], true
}

// Raw is the content of a kernel before it is split into ours and foreign.
type Raw struct {
	Links    []Link
	NextHops []RawNextHop
	Groups   []RawGroup
	Routes   []RawRoute
	Rules    []RawRule
}

// RawNextHop is a single next hop with its route protocol.
type RawNextHop struct {
	NextHop
	Protocol uint8
	// Odd marks an object with attributes that a NextHop cannot express: it is
	// foreign whatever its protocol says.
	Odd bool
}

// RawGroup is a next-hop group with its route protocol. See RawNextHop for Odd.
type RawGroup struct {
	Group
	Protocol uint8
	Odd      bool
}

// RawRoute is a route with its protocol. Routes with a TOS or a source prefix are
// no routes of ours and in nobody's way: they are not listed at all.
type RawRoute struct {
	Route
	Protocol uint8
}

// RawRule is a policy rule with its protocol. See RawNextHop for Odd.
type RawRule struct {
	Rule
	Protocol uint8
	Odd      bool
	// Unresolved marks a goto without a rule at its target.
	Unresolved bool
}

// NewSnapshot splits raw into what is owner's and what is foreign. The result
// is sorted, so equal kernels give equal snapshots; raw itself is not changed.
func NewSnapshot(owner Owner, raw Raw) Snapshot {
	s := Snapshot{Owner: owner, Links: slices.Clone(raw.Links)}
	slices.SortFunc(s.Links, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	s.Config.VRFs = ownVRFs(owner, s.Links)
	s.Config.Tunnels, s.Config.Loops = ownTunnels(owner, s.Links)
	s.classifyNextHops(raw)
	for _, r := range raw.Rules {
		switch {
		case !owner.RulePriorities.Contains(r.Priority):
		case r.Protocol == owner.Protocol && !r.Odd:
			s.Config.Rules = append(s.Config.Rules, r.Rule)
			if r.Unresolved {
				s.Unresolved = append(s.Unresolved, r.Rule)
			}
		default:
			s.Foreign.Rules = append(s.Foreign.Rules, r.Rule)
		}
	}
	slices.SortFunc(s.Config.Rules, compareRules)
	slices.SortFunc(s.Unresolved, compareRules)
	slices.SortFunc(s.Foreign.Rules, compareRules)
	s.classifyRoutes(raw)
	return s
}

func (s *Snapshot) classifyNextHops(raw Raw) {
	ours := func(id NextHopID, protocol uint8, odd bool) bool {
		if !s.Owner.NextHopIDs.Contains(uint32(id)) {
			return false
		}
		if protocol == s.Owner.Protocol && !odd {
			return true
		}
		s.Foreign.NextHops = append(s.Foreign.NextHops, id)
		return false
	}
	for _, n := range raw.NextHops {
		if ours(n.ID, n.Protocol, n.Odd) {
			s.Config.NextHops = append(s.Config.NextHops, n.NextHop)
		}
	}
	for _, g := range raw.Groups {
		if ours(g.ID, g.Protocol, g.Odd) {
			s.Config.Groups = append(s.Config.Groups, g.Group)
		}
	}
	slices.SortFunc(s.Config.NextHops, func(a, b NextHop) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Config.Groups, func(a, b Group) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(s.Foreign.NextHops)
}

func (s *Snapshot) classifyRoutes(raw Raw) {
	ours := func(r RawRoute) bool { return r.Protocol == s.Owner.Protocol || r.Protocol == s.Owner.LearnedProtocol }
	for _, r := range raw.Routes {
		if ours(r) {
			r.Route.Learned = r.Protocol == s.Owner.LearnedProtocol
			s.Config.Routes = append(s.Config.Routes, r.Route)
		}
	}
	sortRuns(s.Config.Routes, compareRoutes)
	tables := s.tables()
	for _, r := range raw.Routes {
		if !ours(r) && tables[r.Table] {
			s.Foreign.Routes = append(s.Foreign.Routes, r.Route)
		}
	}
	slices.SortFunc(s.Foreign.Routes, compareRoutes)
}

// tables are those that count as ours: of our VRFs, with routes of ours, or looked up
// by a rule of ours. The kernel's own tables never do, though our rules may look them
// up and our routes be in them: they are everybody's.
func (s *Snapshot) tables() map[TableID]bool {
	tables := map[TableID]bool{}
	for _, v := range s.Config.VRFs {
		tables[v.Table] = true
	}
	for _, r := range s.Config.Rules {
		if r.Action == RuleLookup {
			tables[r.Table] = true
		}
	}
	last := TableID(0)
	for _, r := range s.Config.Routes {
		if r.Table != last {
			tables[r.Table], last = true, r.Table
		}
	}
	for _, everybodys := range []TableID{unix.RT_TABLE_UNSPEC, unix.RT_TABLE_DEFAULT, unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL} {
		delete(tables, everybodys)
	}
	return tables
}

// ownVRFs lists the VRFs among links, which are sorted by name, that carry
// owner's alias.
func ownVRFs(owner Owner, links []Link) []VRF {
	var out []VRF
	at := map[string]int{}
	for _, l := range links {
		if l.Kind != "vrf" {
			continue
		}
		if index, ok := owner.vrfAlias(l.Alias); ok {
			at[l.Name] = len(out)
			out = append(out, VRF{Name: l.Name, Index: index, Table: l.Table})
		}
	}
	for _, l := range links {
		i, ok := at[l.Master]
		if l.Master == "" || !ok {
			continue
		}
		port := Port{Name: l.Name, Addresses: ownAddresses(owner, l)}
		if owner.ownsVLAN(l) {
			port.VLAN = &VLAN{Parent: l.Parent, ID: l.VLANID}
		}
		out[i].Ports = append(out[i].Ports, port)
	}
	return out
}

func ownAddresses(owner Owner, l Link) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range l.Addresses {
		if a.Protocol == owner.Protocol {
			out = append(out, a.Prefix)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// vrfAlias reads the index out of the alias of a VRF device of ours.
func (o Owner) vrfAlias(alias string) (index uint16, ok bool) {
	rest, ok := strings.CutPrefix(alias, o.Alias+":")
	if !ok {
		return 0, false
	}
	network, number, ok := strings.Cut(rest, ":")
	if !ok || network == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(number, 10, 16)
	return uint16(n), err == nil
}

// aliasOf is the alias of a VRF device of ours.
func (o Owner) aliasOf(v VRF) string {
	return o.Alias + ":" + v.Name + ":" + strconv.Itoa(int(v.Index))
}

// portAlias is the alias of a VLAN device of ours.
func (o Owner) portAlias() string { return o.Alias + ":port" }

// newGroup is the device group of our devices until they have their alias. The
// kernel sets a group when it creates a device, but an alias only afterwards, so
// a daemon killed in between would leave a device that nobody recognises.
func (o Owner) newGroup() uint32 {
	return 0x40000000 | uint32(hashString(o.Alias)&0x3fffffff)
}

// ownsVRF says that l is a VRF device of ours, maybe one without its alias yet.
func (o Owner) ownsVRF(l Link) bool {
	_, ok := o.vrfAlias(l.Alias)
	return l.Kind == "vrf" && (ok || o.halfMade(l))
}

// ownsVLAN says that l is a VLAN device of ours, maybe one without its alias yet.
func (o Owner) ownsVLAN(l Link) bool {
	return l.Kind == "vlan" && (l.Alias == o.portAlias() || o.halfMade(l))
}

func (o Owner) halfMade(l Link) bool { return l.Alias == "" && l.Group == o.newGroup() }

// compareRoutes orders by key. It is asked for every route of a full table, so it does
// no more than it must: prefixes are masked, so netip.Prefix.Compare would only be slower.
func compareRoutes(a, b Route) int {
	if a.Table != b.Table {
		return cmp.Compare(a.Table, b.Table)
	}
	if a.Prefix != b.Prefix {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits())
	}
	return cmp.Compare(a.Metric, b.Metric)
}

func compareRules(a, b Rule) int {
	family := func(r Rule) int {
		if r.IPv6 {
			return 6
		}
		return 4
	}
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(family(a), family(b)),
		cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.Mask, b.Mask),
		cmp.Compare(a.Action, b.Action), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Target, b.Target))
}
