package flows

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// PortsPerTarget is how many flows of one protocol an address can have to one port of
// one destination: source NAT chooses among the ports 1024-65535.
const PortsPerTarget = 65536 - 1024

// Usage adds up how far pool addresses are used, in bounded memory. Its zero
// value is not usable, see NewUsage.
type Usage struct {
	limit     int
	addresses map[poolAddress]*AddressUsage
	targets   map[target]int
	missed    int
	tolerance int
}

// A poolAddress in one network: networks with equal pools share no ports.
type poolAddress struct {
	address netip.Addr
	zone    uint16
}

// A target is what must have a port of its own for each of its flows. Without
// pointers, so that the collector passes the map over.
type target struct {
	address, dst  [16]byte
	v4            bool
	zone, dstPort uint16
	proto         uint8
}

// AddressUsage is how far a pool address of a network is used.
type AddressUsage struct {
	Zone    uint16 // of the network
	Address netip.Addr
	Flows   int
	ByProto map[uint8]int // by IANA number
	Fullest Target        // the target with the most flows
}

// A Target is a destination as one pool address sees it.
type Target struct {
	Proto   uint8
	Dst     netip.Addr
	DstPort uint16
	// Flows is at most PortsPerTarget for protocols with ports. The true number is
	// this or up to Usage.Tolerance more.
	Flows int
}

// NewUsage returns a Usage that holds at most limit pool addresses and limit
// targets, about 100 bytes each. A limit below 1 is 1.
func NewUsage(limit int) *Usage {
	return &Usage{limit: max(limit, 1), addresses: map[poolAddress]*AddressUsage{}, targets: map[target]int{}}
}

// Add counts a flow.
func (u *Usage) Add(f Flow) {
	key := poolAddress{f.Address, f.Zone}
	a := u.addresses[key]
	if a == nil {
		if len(u.addresses) >= u.limit {
			u.missed++
			return
		}
		a = &AddressUsage{Zone: f.Zone, Address: f.Address, ByProto: map[uint8]int{}}
		u.addresses[key] = a
	}
	a.Flows++
	a.ByProto[f.Proto]++
	u.addTarget(target{
		address: f.Address.As16(), dst: f.Dst.As16(), v4: f.Address.Is4(),
		zone: f.Zone, dstPort: f.DstPort, proto: f.Proto,
	})
}

// addTarget counts as Misra and Gries do: a new target without room takes one off
// all others. So no count is too high, or too low by more than the times this
// happened, which are at most flows / (limit + 1): what is nearly full is found in any case.
func (u *Usage) addTarget(t target) {
	n, known := u.targets[t]
	if known || len(u.targets) < u.limit {
		u.targets[t] = n + 1
		return
	}
	u.tolerance++
	for other, n := range u.targets {
		if n == 1 {
			delete(u.targets, other)
		} else {
			u.targets[other] = n - 1
		}
	}
}

// Missed counts flows of addresses that found no room.
func (u *Usage) Missed() int { return u.missed }

// Tolerance is by how much Target.Flows may be too low: 0 as long as all targets
// found room.
func (u *Usage) Tolerance() int { return u.tolerance }

// Addresses returns the usage of each address, ordered by zone and address.
func (u *Usage) Addresses() []AddressUsage {
	fullest := map[poolAddress]Target{}
	for t, n := range u.targets {
		key, this := t.split(n)
		if old, ok := fullest[key]; !ok || old.less(this) {
			fullest[key] = this
		}
	}
	list := make([]AddressUsage, 0, len(u.addresses))
	for key, a := range u.addresses {
		one := *a
		one.ByProto, one.Fullest = maps.Clone(a.ByProto), fullest[key]
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b AddressUsage) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), a.Address.Compare(b.Address))
	})
	return list
}

func (t target) split(flows int) (poolAddress, Target) {
	address, dst := netip.AddrFrom16(t.address), netip.AddrFrom16(t.dst)
	if t.v4 {
		address, dst = address.Unmap(), dst.Unmap()
	}
	return poolAddress{address, t.zone}, Target{Proto: t.proto, Dst: dst, DstPort: t.dstPort, Flows: flows}
}

// less orders targets by their flows, and equal ones so that the same is reported each time.
func (t Target) less(o Target) bool {
	return cmp.Or(cmp.Compare(t.Flows, o.Flows), cmp.Compare(o.Proto, t.Proto), o.Dst.Compare(t.Dst),
		cmp.Compare(o.DstPort, t.DstPort)) < 0
}
