package steer

import (
	"slices"
	"strconv"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// Memo keeps, from one call of Decide to the next, what came out the same: a pod that
// comes to a node with many policies and sets concerns a few elements. What is kept
// shares memory with what was decided before, which the planner of the packet filter
// sees at once. It changes nothing about what is decided. The zero Memo is ready; it
// is not for several goroutines at a time.
type Memo struct {
	mask     uint32                // of the marks in all that is kept
	policies map[string]madePolicy // by name
	sets     map[uint16]madeSet
	routing  *madeRouting
}

// madePolicy is the chain of a policy with the maps that it looks destinations up in.
type madePolicy struct {
	destinations []nat.Value
	chain        nat.Chain
	maps         map[string]nat.Set
}

// madeSet are the chains of a set of gateways: those that take flows back to it, put
// new ones to it, and choose it.
type madeSet struct{ take, put, choose nat.Chain }

// madeRouting is the routing for sets of gateways.
type madeRouting struct {
	tunnel vrf.TunnelDevice
	loop   string
	sets   []Set
	mask   vrf.Mark
	caught []uint32 // bits of marks that nothing but a set's rule may have let by
	config vrf.Config
}

// policy makes the chain of a policy.
func (m *Memo) policy(p policyChain, mk marks) madePolicy {
	if known, ok := m.policies[p.name]; ok && slices.Equal(known.destinations, p.destinations) {
		return known
	}
	made := madePolicy{destinations: p.destinations, maps: map[string]nat.Set{}}
	texts := []string{isLocal, "ct original zone set " + strconv.Itoa(zone), mk.put("meta", codeNormal)}
	for i, family := range []string{"ip", "ip6"} {
		if s := nat.AddressMap(p.destinations, i == 0); len(s.Elements) > 0 {
			name := nat.ObjectName("dst"+[]string{"4_", "6_"}[i], p.name)
			made.maps[name] = s
			texts = append(texts, family+" daddr vmap @"+name)
		}
	}
	made.chain = nat.NewChain(nat.Base{}, texts...)
	return made
}

// set makes the chains of a set, which follow from its number.
func (m *Memo) set(number uint16, mk marks) madeSet {
	if known, ok := m.sets[number]; ok {
		return known
	}
	return madeSet{
		take:   nat.NewChain(nat.Base{}, mk.put("meta", number)),
		put:    nat.NewChain(nat.Base{}, mk.put("ct", number)),
		choose: nat.NewChain(nat.Base{}, mk.put("meta", number)),
	}
}

// same says whether the routing for what o is of is what it was.
func (r *madeRouting) same(o *madeRouting) bool {
	return r != nil && r.tunnel == o.tunnel && r.loop == o.loop && r.mask == o.mask && slices.Equal(r.caught, o.caught) &&
		slices.EqualFunc(r.sets, o.sets, func(a, b Set) bool {
			return a.Number == b.Number && slices.Equal(a.markers, b.markers) && slices.Equal(a.hops, b.hops)
		})
}
