package vrftest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/egret-router/egret/vrf"
)

// Values of IFA_PROTO and IFA_F_* (linux/if_addr.h).
const (
	addrSecondary = 0x01
)

func (k *Kernel) link(name string) *vrf.Link {
	i := slices.IndexFunc(k.links, func(l vrf.Link) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return &k.links[i]
}

// running says whether next hops can be on the device. The Carrier of a stored
// link is that of its cable: a VRF always has one, a VLAN has its parent's.
func (k *Kernel) running(l vrf.Link) bool {
	if !l.Up {
		return false
	}
	switch l.Kind {
	case "vrf":
		return true
	case "vlan":
		parent := k.link(l.Parent)
		return parent == nil || k.running(*parent)
	}
	if peer := k.link(l.Parent); l.Kind == "veth" && peer != nil {
		return peer.Up // as the cable between two that are here
	}
	return l.Carrier || l.Kind == "vxlan"
}

func (k *Kernel) addLink(l vrf.Link) error {
	if k.link(l.Name) != nil {
		return fmt.Errorf("device %q: %w", l.Name, syscall.EEXIST)
	}
	k.lastIndex++
	l.Index = k.lastIndex
	k.links = append(k.links, l)
	return nil
}

func (k *Kernel) addVLAN(a vrf.AddVLAN) error {
	parent := k.link(a.VLAN.Parent)
	if parent == nil {
		return fmt.Errorf("parent %q: %w", a.VLAN.Parent, syscall.ENODEV)
	}
	for _, l := range k.links {
		if l.Kind == "vlan" && l.Parent == a.VLAN.Parent && l.VLANID == a.VLAN.ID {
			return fmt.Errorf("vlan %d of %q: %w", a.VLAN.ID, a.VLAN.Parent, syscall.EEXIST)
		}
	}
	return k.addLink(vrf.Link{Name: a.Name, Kind: "vlan", Parent: a.VLAN.Parent, VLANID: a.VLAN.ID, Group: a.Group, MTU: parent.MTU})
}

// addTunnel follows the kernel in that two such devices cannot have one port.
func (k *Kernel) addTunnel(a vrf.AddTunnel) error {
	if i := slices.IndexFunc(k.links, func(l vrf.Link) bool { return l.GPE && l.Port == a.Port }); i >= 0 {
		return fmt.Errorf("port %d is of %q: %w", a.Port, k.links[i].Name, syscall.EEXIST)
	}
	return k.addLink(vrf.Link{Name: a.Name, Kind: "vxlan", Port: a.Port, GPE: true, NoARP: true, MTU: cmp.Or(a.MTU, 1500), Group: a.Group})
}

// loopMAC is the address that the real kernel's loops have.
const loopMAC = "02:65:67:72:65:74"

func (k *Kernel) addLoop(a vrf.AddLoop) error {
	if k.link(a.Peer) != nil {
		return fmt.Errorf("device %q: %w", a.Peer, syscall.EEXIST)
	}
	end := vrf.Link{Name: a.Name, Parent: a.Peer, Kind: "veth", NoARP: true, MAC: loopMAC, MTU: cmp.Or(a.MTU, 1500), Group: a.Group}
	if err := k.addLink(end); err != nil {
		return err
	}
	end.Name, end.Parent = a.Peer, a.Name
	return k.addLink(end)
}

func (k *Kernel) setMTU(a vrf.SetMTU) error {
	l := k.link(a.Device)
	if l == nil {
		return fmt.Errorf("device %q: %w", a.Device, syscall.ENODEV)
	}
	l.MTU = a.MTU
	return nil
}

func (k *Kernel) deleteLink(name string) {
	l := k.link(name)
	if l == nil {
		return
	}
	for i := range k.links {
		if k.links[i].Master == name {
			k.links[i].Master = ""
			k.cycle(&k.links[i])
		}
	}
	children := slices.DeleteFunc(slices.Clone(k.links), func(o vrf.Link) bool {
		return o.Parent != name || o.Kind != "vlan" && o.Kind != "veth"
	})
	k.dropHopsOn(name)
	k.links = slices.DeleteFunc(k.links, func(l vrf.Link) bool { return l.Name == name })
	for _, other := range children {
		k.deleteLink(other.Name)
	}
}

func (k *Kernel) setMaster(a vrf.SetMaster) error {
	l := k.link(a.Device)
	if l == nil {
		return fmt.Errorf("device %q: %w", a.Device, syscall.ENODEV)
	}
	if a.Master != "" {
		if m := k.link(a.Master); m == nil || (m.Kind != "vrf" && m.Kind != "bridge") || l.Kind == "vrf" || l.Name == "lo" {
			return fmt.Errorf("master %q of %q: %w", a.Master, a.Device, syscall.EINVAL)
		}
	}
	if l.Master != "" {
		l.Master = ""
		k.cycle(l)
	}
	if a.Master != "" {
		l.Master = a.Master
		k.cycle(l)
	}
	return nil
}

// cycle takes a device that is up down and up again (vrf.c, cycle_netdev).
func (k *Kernel) cycle(l *vrf.Link) {
	if l.Up {
		k.setUp(l, false)
		k.setUp(l, true)
	}
}

// setUp models a device going down: IPv6 addresses are flushed, next hops and the
// routes of others through the device are dropped, VLANs follow in both directions.
func (k *Kernel) setUp(l *vrf.Link, up bool) {
	l.Up = up
	if !up {
		l.Addresses = slices.DeleteFunc(l.Addresses, func(a vrf.Address) bool { return a.Prefix.Addr().Is6() })
		k.dropHopsOn(l.Name)
		if l.Kind == "veth" && k.link(l.Parent) != nil {
			k.dropHopsOn(l.Parent) // which has no carrier any more
		}
	}
	for i := range k.links {
		if child := &k.links[i]; child.Kind == "vlan" && child.Parent == l.Name && child.Up != up {
			k.setUp(child, up)
		}
	}
}

func (k *Kernel) bringUp(name string) error {
	l := k.link(name)
	switch {
	case l == nil:
		return fmt.Errorf("device %q: %w", name, syscall.ENODEV)
	case l.Up:
		return nil
	}
	if l.Kind == "vlan" {
		if parent := k.link(l.Parent); parent != nil && !parent.Up {
			return fmt.Errorf("device %q: %w", name, syscall.ENETDOWN)
		}
	}
	k.setUp(l, true)
	return nil
}

func (k *Kernel) setAlias(a vrf.SetAlias) error {
	l := k.link(a.Device)
	if l == nil {
		return fmt.Errorf("device %q: %w", a.Device, syscall.ENODEV)
	}
	l.Alias, l.Group = a.Alias, 0
	return nil
}

// putAddress follows RTM_NEWADDR with NLM_F_REPLACE. IPv4 tells addresses apart by
// address and length, IPv6 by address alone: its length never changes.
func (k *Kernel) putAddress(a vrf.PutAddress) error {
	l := k.link(a.Device)
	if l == nil {
		return fmt.Errorf("device %q: %w", a.Device, syscall.ENODEV)
	}
	for i, old := range l.Addresses {
		if old.Prefix == a.Address.Prefix || (old.Prefix.Addr().Is6() && old.Prefix.Addr() == a.Address.Prefix.Addr()) {
			prefix, secondary := old.Prefix, old.Flags&addrSecondary
			l.Addresses[i] = a.Address
			l.Addresses[i].Prefix = prefix
			l.Addresses[i].Flags |= secondary
			return nil
		}
	}
	address := a.Address
	address.Flags &^= addrSecondary
	if address.Prefix.Addr().Is4() && slices.ContainsFunc(l.Addresses, func(o vrf.Address) bool {
		return sameSubnet(o.Prefix, address.Prefix)
	}) {
		address.Flags |= addrSecondary
	}
	l.Addresses = append(l.Addresses, address)
	return nil
}

func sameSubnet(a, b netip.Prefix) bool { return a.Addr().Is4() && a.Masked() == b.Masked() }

// deleteAddress also drops the secondary addresses of an IPv4 primary, as with
// promote_secondaries off.
func (k *Kernel) deleteAddress(a vrf.DeleteAddress) error {
	l := k.link(a.Device)
	if l == nil {
		return fmt.Errorf("device %q: %w", a.Device, syscall.ENODEV)
	}
	i := slices.IndexFunc(l.Addresses, func(o vrf.Address) bool { return o.Prefix == a.Prefix })
	if i < 0 {
		return fmt.Errorf("address %q: %w", a.Prefix, syscall.EADDRNOTAVAIL)
	}
	primary := l.Addresses[i].Flags&addrSecondary == 0
	l.Addresses = slices.Delete(l.Addresses, i, i+1)
	if primary {
		l.Addresses = slices.DeleteFunc(l.Addresses, func(o vrf.Address) bool { return sameSubnet(o.Prefix, a.Prefix) })
	}
	return nil
}
