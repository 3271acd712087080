package vrf

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tunnels are the devices by which packets go to other nodes and come from them.
// They belong to no VRF and to no plan: EnsureTunnels makes them, and a plan's
// next hops use them.
type Tunnels struct {
	// Device carries packets without Ethernet, each as the next hop's Encap says
	// (VXLAN-GPE in external mode, on UDP Port; kernel 4.7).
	Device string
	Port   uint16
	// LoopOut and LoopIn are a veth pair inside the namespace: what is routed to
	// the first comes in by the second, as a packet that nobody has seen yet.
	LoopOut, LoopIn string
	MTU             int
}

// Bounds of an MTU: what IPv6 needs, what the kernel takes.
const (
	minTunnelMTU = 1280
	maxTunnelMTU = 65000
)

// EnsureTunnels makes the devices what t says, and leaves them untouched where
// they are. A device of the name that is not ours is an error. One that is ours
// and cannot be changed (another port) is made anew, which drops its next hops.
func (k *Kernel) EnsureTunnels(t Tunnels) (changed bool, err error) {
	if t.MTU < minTunnelMTU || t.MTU > maxTunnelMTU {
		return false, fmt.Errorf("tunnel %q: an MTU of %d is not %d to %d", t.Device, t.MTU, minTunnelMTU, maxTunnelMTU)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	made, err := k.ensureVXLAN(t)
	if err != nil {
		return made, fmt.Errorf("tunnel %q: %w", t.Device, err)
	}
	pair, err := k.ensureLoop(t)
	if err != nil {
		return made || pair, fmt.Errorf("loop %q: %w", t.LoopOut, err)
	}
	return made || pair, nil
}

func (k *Kernel) ensureVXLAN(t Tunnels) (changed bool, err error) {
	l, err := k.ours(t.Device, "vxlan")
	if err != nil {
		return false, err
	}
	if v, ok := l.(*netlink.Vxlan); ok && (v.Port != int(t.Port) || !v.FlowBased) {
		if err := k.handle.LinkDel(l); err != nil {
			return false, err
		}
		l = nil
	}
	if l == nil {
		if l, err = k.addTunnel(t); err != nil {
			return false, err
		}
		changed = true
	}
	more, err := k.settle(l, t.MTU)
	return changed || more, err
}

// addTunnel sends the message itself: the netlink library cannot ask for GPE.
func (k *Kernel) addTunnel(t Tunnels) (netlink.Link, error) {
	flag := []byte{1}
	var data, info message
	data.attr(unix.IFLA_VXLAN_ID, []byte{0, 0, 0, 0})
	data.attr(unix.IFLA_VXLAN_COLLECT_METADATA, flag)
	data.attr(unix.IFLA_VXLAN_LEARNING, []byte{0})
	data.attr(unix.IFLA_VXLAN_PORT, []byte{byte(t.Port >> 8), byte(t.Port)})
	// The sender leaves the checksum of IPv6 UDP out, as RFC 6935 allows for tunnels.
	data.attr(unix.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, flag)
	data.attr(unix.IFLA_VXLAN_GPE, nil)
	info.attr(unix.IFLA_INFO_KIND, []byte("vxlan"))
	info.attr(unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, data)
	m := make(message, unix.SizeofIfInfomsg)
	m.attr(unix.IFLA_IFNAME, append([]byte(t.Device), 0))
	m.u32(unix.IFLA_GROUP, k.owner.newGroup())
	m.attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info)
	_, err := k.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, m).Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	return k.handle.LinkByName(t.Device)
}

// ensureLoop makes the pair. Neither end asks for neighbours, and both have the
// same hardware address, so that what one sends is for the other.
func (k *Kernel) ensureLoop(t Tunnels) (changed bool, err error) {
	out, err := k.ours(t.LoopOut, "veth")
	if err != nil {
		return false, err
	}
	in, err := k.ours(t.LoopIn, "veth")
	if err != nil {
		return false, err
	}
	if (out == nil) != (in == nil) {
		return false, fmt.Errorf("one end exists and the other does not: remove it")
	}
	if out == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group, attrs.HardwareAddr = t.LoopOut, k.owner.newGroup(), loopAddress
		if err := k.handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: t.LoopIn, PeerHardwareAddr: loopAddress}); err != nil {
			return false, fmt.Errorf("create: %w", err)
		}
		changed = true
		if out, err = k.handle.LinkByName(t.LoopOut); err != nil {
			return changed, err
		}
		if in, err = k.handle.LinkByName(t.LoopIn); err != nil {
			return changed, err
		}
	}
	for _, l := range []netlink.Link{out, in} {
		if l.Attrs().RawFlags&unix.IFF_NOARP == 0 {
			if err := k.handle.LinkSetARPOff(l); err != nil {
				return changed, err
			}
			changed = true
		}
		more, err := k.settle(l, t.MTU)
		if changed = changed || more; err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// loopAddress is locally administered.
var loopAddress = net.HardwareAddr{0x02, 0x65, 0x67, 0x72, 0x65, 0x74}

// ours finds a device of ours of this kind; nil if there is none of the name.
func (k *Kernel) ours(name, kind string) (netlink.Link, error) {
	l, err := k.handle.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, nil
	case err != nil:
		return nil, err
	case l.Type() != kind || l.Attrs().Alias != k.owner.tunnelAlias() && !k.owner.halfMade(linkOf(l, nil)):
		return nil, fmt.Errorf("device %q exists and is not ours", name)
	}
	return l, nil
}

// tunnelAlias is the alias of a tunnel device of ours.
func (o Owner) tunnelAlias() string { return o.Alias + ":tunnel" }

// settle gives a device its MTU, brings it up, and names it as ours last.
func (k *Kernel) settle(l netlink.Link, mtu int) (changed bool, err error) {
	a := l.Attrs()
	step := func(needed bool, do func() error) {
		if err == nil && needed {
			changed = true
			err = do()
		}
	}
	step(a.MTU != mtu, func() error { return k.handle.LinkSetMTU(l, mtu) })
	step(a.Flags&net.FlagUp == 0, func() error { return k.handle.LinkSetUp(l) })
	step(a.Alias != k.owner.tunnelAlias(), func() error { return k.handle.LinkSetAlias(l, k.owner.tunnelAlias()) })
	step(a.Group == k.owner.newGroup(), func() error { return k.handle.LinkSetGroup(l, 0) })
	return changed, err
}

// RemoveTunnels deletes the devices of ours.
func (k *Kernel) RemoveTunnels(t Tunnels) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for name, kind := range map[string]string{t.Device: "vxlan", t.LoopOut: "veth"} {
		l, err := k.ours(name, kind)
		if err == nil && l != nil {
			err = gone(k.handle.LinkDel(l))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
