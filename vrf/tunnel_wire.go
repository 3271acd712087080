package vrf

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// LWTUNNEL_IP_* and LWTUNNEL_IP6_*, which have the same values
	// (linux/lwtunnel.h).
	lwtunnelID  = 1
	lwtunnelDst = 2
	lwtunnelSrc = 3

	vethInfoPeer = 1 // VETH_INFO_PEER

	encapNone = "none" // ARPHRD_NONE as the netlink library says it
)

func uintText(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func (m *message) u16(kind, v uint16) { m.attr(kind, binary.NativeEndian.AppendUint16(nil, v)) }

// encode writes NHA_ENCAP of a next hop.
func (t Tunnel) encode(m *message) {
	kind := uint16(unix.LWTUNNEL_ENCAP_IP)
	if t.Endpoint.Is6() {
		kind = unix.LWTUNNEL_ENCAP_IP6
	}
	var encap message
	encap.attr(lwtunnelID, binary.BigEndian.AppendUint64(nil, uint64(t.VNI)))
	encap.attr(lwtunnelDst, t.Endpoint.AsSlice())
	if t.Source.IsValid() {
		encap.attr(lwtunnelSrc, t.Source.AsSlice())
	}
	m.u16(unix.NHA_ENCAP_TYPE, kind)
	m.attr(unix.NHA_ENCAP|unix.NLA_F_NESTED, encap)
}

// read takes NHA_ENCAP. What a Tunnel cannot express, a time to live for example,
// is odd.
func (t *Tunnel) read(kind uint16, b []byte) (odd bool, err error) {
	if kind != unix.LWTUNNEL_ENCAP_IP && kind != unix.LWTUNNEL_ENCAP_IP6 {
		return true, nil
	}
	err = eachAttr(b, func(attr uint16, data []byte) error {
		switch attr {
		case lwtunnelID:
			if len(data) != 8 {
				return fmt.Errorf("%d bytes instead of 8", len(data))
			}
			id := binary.BigEndian.Uint64(data)
			t.VNI, odd = uint32(id&(1<<24-1)), odd || id >= 1<<24
			return nil
		case lwtunnelDst:
			return readAddr(data, &t.Endpoint)
		case lwtunnelSrc:
			if err := readAddr(data, &t.Source); err != nil {
				return err
			}
			if t.Source.IsUnspecified() {
				t.Source = netip.Addr{}
			}
			return nil
		}
		for _, b := range data { // what was not given is there as zeros
			odd = odd || b != 0
		}
		return nil
	})
	if err != nil {
		return odd, err
	}
	ipv6 := kind == unix.LWTUNNEL_ENCAP_IP6
	if !t.Endpoint.IsValid() || t.Endpoint.Is6() != ipv6 || t.Source.IsValid() && t.Source.Is6() != ipv6 {
		return odd, fmt.Errorf("encapsulation of another family, or to nowhere")
	}
	return odd, nil
}

// The netlink library can make neither a GPE device nor a pair whose ends both
// begin without ARP, so these messages are written here. Flags in the header of a
// new device are set before it is announced (rtnl_configure_link); a peer cannot be up
// then, since it has no other end yet.

func linkMessage(name string, mtu int, group, flags uint32) message {
	m := make(message, unix.SizeofIfInfomsg, 128)
	binary.NativeEndian.PutUint32(m[8:], flags)
	binary.NativeEndian.PutUint32(m[12:], flags)
	m.attr(unix.IFLA_IFNAME, append([]byte(name), 0))
	if mtu > 0 {
		m.u32(unix.IFLA_MTU, uint32(mtu))
	}
	m.u32(unix.IFLA_GROUP, group)
	return m
}

func (m *message) linkInfo(kind string, data message) {
	var info message
	info.attr(unix.IFLA_INFO_KIND, []byte(kind))
	info.attr(unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, data)
	m.attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info)
}

func encodeTunnelDevice(a AddTunnel) message {
	m := linkMessage(a.Name, a.MTU, a.Group, unix.IFF_NOARP)
	var data message
	data.attr(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, a.Port))
	data.attr(unix.IFLA_VXLAN_LEARNING, []byte{0})
	data.attr(unix.IFLA_VXLAN_COLLECT_METADATA, []byte{1})
	data.attr(unix.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, []byte{1})
	data.attr(unix.IFLA_VXLAN_GPE, nil)
	m.linkInfo("vxlan", data)
	return m
}

func encodeLoop(a AddLoop) (message, error) {
	mac, err := net.ParseMAC(loopMAC)
	if err != nil {
		return nil, err
	}
	m := linkMessage(a.Name, a.MTU, a.Group, unix.IFF_NOARP)
	m.attr(unix.IFLA_ADDRESS, mac)
	peer := linkMessage(a.Peer, a.MTU, a.Group, unix.IFF_NOARP)
	peer.attr(unix.IFLA_ADDRESS, mac)
	var data message
	data.attr(vethInfoPeer|unix.NLA_F_NESTED, peer)
	m.linkInfo("veth", data)
	return m, nil
}

// readTunnel fills in what of a link concerns tunnels and loops.
func (out *Link) readTunnel(l netlink.Link, names map[int]string) {
	a := l.Attrs()
	out.NoARP = a.RawFlags&unix.IFF_NOARP != 0
	switch l := l.(type) {
	case *netlink.Vxlan:
		out.Port = uint16(l.Port)
		out.GPE = l.FlowBased && l.UDP6ZeroCSumRx && a.EncapType == encapNone
	case *netlink.Veth:
		out.MAC = a.HardwareAddr.String()
		if a.NetNsID < 0 { // the other end is in this namespace
			out.Parent = names[a.ParentIndex]
		}
	}
}
