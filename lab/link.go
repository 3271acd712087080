package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// Link connects two namespaces by a veth pair, both ends up: next hops need a
// carrier on both.
func (l *Lab) Link(a *NS, deviceA string, b *NS, deviceB string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = deviceA
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: deviceB, PeerNamespace: netlink.NsFd(b.net.Fd())}
	if err := a.Do(func() error { return netlink.LinkAdd(veth) }); err != nil {
		return fmt.Errorf("link %s:%s to %s:%s: %w", a.Name, deviceA, b.Name, deviceB, err)
	}
	if err := a.SetLink(deviceA, true); err != nil {
		return err
	}
	return b.SetLink(deviceB, true)
}

// MustLink is Link for tests.
func (l *Lab) MustLink(a *NS, deviceA string, b *NS, deviceB string) {
	l.helper()
	l.check(l.Link(a, deviceA, b, deviceB))
}

// SetLink sets a device up or down. Down takes the carrier from its peer.
func (ns *NS) SetLink(device string, up bool) error {
	err := ns.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
	if err != nil {
		return fmt.Errorf("set link %q in %q up %t: %w", device, ns.Name, up, err)
	}
	return nil
}

// MAC returns a device's hardware address.
func (ns *NS) MAC(device string) (net.HardwareAddr, error) {
	var mac net.HardwareAddr
	err := ns.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		mac = link.Attrs().HardwareAddr
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hardware address of %q in %q: %w", device, ns.Name, err)
	}
	return mac, nil
}
