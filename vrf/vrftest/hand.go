package vrftest

import (
	"slices"

	"github.com/egret-router/egret/vrf"
)

// What follows is what others do to the kernel: an administrator, a cable, a
// daemon. Each notifies the watchers.

// AddLink adds a device. It gets an index unless it has one.
func (k *Kernel) AddLink(l vrf.Link) {
	k.change(func() {
		if l.Index == 0 {
			l.Index = k.lastIndex + 1
		}
		k.lastIndex = max(k.lastIndex, l.Index)
		if l.MTU == 0 {
			l.MTU = 1500
		}
		l.Addresses = slices.Clone(l.Addresses)
		k.links = append(k.links, l)
	})
}

// DeleteLink removes a device as "ip link del" does, or a cable pulled for good.
func (k *Kernel) DeleteLink(name string) { k.change(func() { k.deleteLink(name) }) }

// SetUp brings a device up or down.
func (k *Kernel) SetUp(name string, up bool) {
	k.change(func() {
		if l := k.link(name); l != nil && l.Up != up {
			k.setUp(l, up)
		}
	})
}

// SetCarrier plugs or pulls the cable of a device.
func (k *Kernel) SetCarrier(name string, carrier bool) {
	k.change(func() {
		l := k.link(name)
		if l == nil {
			return
		}
		l.Carrier = carrier
		for _, other := range k.links {
			if !k.running(other) {
				k.dropHopsOn(other.Name)
			}
		}
	})
}

// SetMaster enslaves a device to any other, or releases it.
func (k *Kernel) SetMaster(name, master string) error {
	return k.Do(vrf.SetMaster{Device: name, Master: master})
}

// Do carries out one action as by hand: without the failures that were asked for.
func (k *Kernel) Do(a vrf.Action) error {
	k.mu.Lock()
	err := k.do(a)
	k.mu.Unlock()
	k.notify()
	return err
}

// AddForeignNextHop adds a next hop with a protocol.
func (k *Kernel) AddForeignNextHop(n vrf.NextHop, protocol uint8) {
	k.change(func() { k.nextHops = append(k.nextHops, vrf.RawNextHop{NextHop: n, Protocol: protocol}) })
}

// AddForeignRoute adds or replaces a route with a protocol.
func (k *Kernel) AddForeignRoute(r vrf.Route, protocol uint8) {
	k.change(func() { k.routes[keyOf(r)] = vrf.RawRoute{Route: r, Protocol: protocol} })
}

// AddForeignRule adds a rule with a protocol.
func (k *Kernel) AddForeignRule(r vrf.Rule, protocol uint8) {
	k.change(func() { k.rules = append(k.rules, vrf.RawRule{Rule: r, Protocol: protocol}) })
}

func (k *Kernel) change(f func()) {
	k.mu.Lock()
	f()
	k.mu.Unlock()
	k.notify()
}

// Raw is all that the kernel has, of whomever.
func (k *Kernel) Raw() vrf.Raw {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.raw()
}
