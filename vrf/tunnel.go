package vrf

import (
	"net/netip"
	"slices"
	"strings"
)

// TunnelDevice is a VXLAN-GPE device of ours (RFC 7348 and its draft extension, next
// protocol IPv4 or IPv6): IP packets without Ethernet, so that there are no
// neighbours. It has no far end of its own: the routes say where each packet goes
// (NextHop.Tunnel), so one device serves all of them. It takes packets with an IPv6
// outer header and no UDP checksum, which is how it sends them (RFC 6935).
type TunnelDevice struct {
	Name string
	// Port is the UDP port it listens and sends to.
	Port uint16
	// MTU in bytes of the packets inside; 0 leaves it as it is.
	MTU int
}

// Loop is a pair of veth devices of ours in this namespace, without ARP and with one
// hardware address: what is routed into one end enters by the other as a fresh packet,
// which conntrack has not seen. It keeps its mark.
type Loop struct {
	Name, Peer string
	// MTU in bytes of both; 0 leaves it as it is.
	MTU int
}

// Tunnel says where a next hop on a TunnelDevice sends to.
type Tunnel struct {
	// Endpoint is the far end. Its family is that of the outer header, and does not
	// depend on that of the packets inside. It is invalid for a next hop without a
	// tunnel.
	Endpoint netip.Addr
	// Source is the near end, of the same family; invalid leaves the choice to the
	// kernel.
	Source netip.Addr
	// VNI is the network identifier, below 1<<24.
	VNI uint32
}

func (t Tunnel) String() string {
	s := "encap ip id " + uintText(t.VNI) + " dst " + t.Endpoint.String()
	if t.Endpoint.Is6() {
		s = "encap ip6 id " + uintText(t.VNI) + " dst " + t.Endpoint.String()
	}
	if t.Source.IsValid() {
		s += " src " + t.Source.String()
	}
	return s
}

// check says why the kernel would not take t.
func (t Tunnel) check() string {
	switch {
	case t.VNI >= 1<<24:
		return "the VNI is above 16777215"
	case t.Source.IsValid() && t.Source.Is6() != t.Endpoint.Is6():
		return "the ends of the tunnel are of two families"
	case t.Endpoint.Is4In6() || t.Source.Is4In6() || t.Endpoint.Zone() != "" || t.Source.Zone() != "":
		return "an end of the tunnel is no plain address"
	}
	return ""
}

// loopMAC is the hardware address of both ends of a loop. It is a locally
// administered one, and the same everywhere: it never gets onto a wire.
const loopMAC = "02:65:67:72:65:74"

// The aliases of a TunnelDevice and of the two ends of a Loop.
func (o Owner) tunnelAlias() string { return o.Alias + ":tunnel" }
func (o Owner) loopAlias() string   { return o.Alias + ":loop" }
func (o Owner) peerAlias() string   { return o.Alias + ":loop-peer" }

// ownsTunnel says that l is a tunnel device of ours, maybe one without its alias yet.
func (o Owner) ownsTunnel(l Link) bool {
	return l.Kind == "vxlan" && (l.Alias == o.tunnelAlias() || o.halfMade(l))
}

// ownsLoop says that l is an end of a loop of ours, maybe one without its alias yet.
func (o Owner) ownsLoop(l Link) bool {
	return l.Kind == "veth" && (l.Alias == o.loopAlias() || l.Alias == o.peerAlias() || o.halfMade(l))
}

// ownTunnels lists what is ours among links, which are sorted by name. What is not
// as we make it is not listed, so that it is made anew.
func ownTunnels(o Owner, links []Link) (tunnels []TunnelDevice, loops []Loop) {
	byName := make(map[string]Link, len(links))
	for _, l := range links {
		byName[l.Name] = l
	}
	for _, l := range links {
		switch {
		case o.ownsTunnel(l) && l.GPE:
			tunnels = append(tunnels, TunnelDevice{Name: l.Name, Port: l.Port, MTU: l.MTU})
		case o.ownsLoop(l) && l.Alias == o.loopAlias():
			peer, ok := byName[l.Parent]
			if ok && peer.Parent == l.Name && o.ownsLoop(peer) && l.looped() && peer.looped() {
				loops = append(loops, Loop{Name: l.Name, Peer: peer.Name, MTU: min(l.MTU, peer.MTU)})
			}
		}
	}
	return tunnels, loops
}

func (l Link) looped() bool { return l.NoARP && l.MAC == loopMAC }

// takeTunnels copies the wanted tunnels and loops, sorted, without what excludes
// something else.
func (p *planner) takeTunnels(want Config) {
	taken, ports := map[string]bool{"lo": true}, map[uint16]string{}
	for _, v := range p.vrfs {
		taken[v.Name] = true
	}
	for _, w := range p.ports {
		taken[w.Name] = true
	}
	for _, t := range slices.SortedFunc(slices.Values(want.Tunnels), func(a, b TunnelDevice) int { return strings.Compare(a.Name, b.Name) }) {
		switch {
		case taken[t.Name]:
			p.fail("", "tunnel %q has the name of another device", t.Name)
		case ports[t.Port] != "":
			p.fail("", "tunnel %q has the port of %q", t.Name, ports[t.Port])
		default:
			p.tunnels = append(p.tunnels, t)
			taken[t.Name], ports[t.Port] = true, t.Name
		}
	}
	for _, l := range slices.SortedFunc(slices.Values(want.Loops), func(a, b Loop) int { return strings.Compare(a.Name, b.Name) }) {
		if taken[l.Name] || taken[l.Peer] || l.Name == l.Peer {
			p.fail("", "loop %q-%q has the name of another device", l.Name, l.Peer)
			continue
		}
		p.loops = append(p.loops, l)
		taken[l.Name], taken[l.Peer] = true, true
	}
}

// What inTheWay compares: a device of ours that is not what has its name is in the
// way, as is one that listens on the port of a wanted tunnel.
func tunnelKey(port uint16) string     { return "tunnel on port " + uintText(uint32(port)) }
func loopKey(name, peer string) string { return "loop " + min(name, peer) + " " + max(name, peer) }
func brokenKey(name string) string     { return "not as we make it: " + name }

func (o Owner) ownsDevice(l Link) bool { return o.ownsTunnel(l) || o.ownsLoop(l) }

// roomForTunnels adds to what wantedRoom says.
func (p *planner) roomForTunnels(room map[string]string) {
	for _, t := range p.tunnels {
		room[nameKey(t.Name)] = tunnelKey(t.Port)
		room[tunnelKey(t.Port)] = t.Name
	}
	for _, l := range p.loops {
		room[nameKey(l.Name)], room[nameKey(l.Peer)] = loopKey(l.Name, l.Peer), loopKey(l.Name, l.Peer)
	}
}

// tunnelIs is what a tunnel or an end of a loop of ours is, for inTheWay.
func (p *planner) tunnelIs(l Link) string {
	if l.Kind == "vxlan" {
		if !l.GPE {
			return brokenKey(l.Name)
		}
		return tunnelKey(l.Port)
	}
	peer, ok := p.links.get(l.Parent)
	if !ok || !p.owner.ownsLoop(peer.Link) || !l.looped() || !peer.looped() {
		return brokenKey(l.Name)
	}
	return loopKey(l.Name, l.Parent)
}

// addTunnels makes the tunnels and loops that are missing, and brings all up.
func (p *planner) addTunnels() {
	for _, t := range p.tunnels {
		l, ok := p.links.get(t.Name)
		if ok && !p.owner.ownsDevice(l.Link) {
			p.fail("", "device %q exists and is not ours", t.Name)
			p.blockedPort[t.Name] = true
			continue
		}
		if !ok {
			p.create("", t.Name, AddTunnel{TunnelDevice: t, Group: p.owner.newGroup()}, p.roomFor(nameKey(t.Name), tunnelKey(t.Port)))
			l = p.links.add(Link{Name: t.Name, Kind: "vxlan", Port: t.Port, GPE: true, NoARP: true, MTU: t.MTU, Group: p.owner.newGroup()})
		}
		p.rename("", l, p.owner.tunnelAlias())
		p.setMTU(l, t.MTU)
		p.up("", l)
	}
	for _, l := range p.loops {
		p.addLoop(l)
	}
}

func (p *planner) addLoop(want Loop) {
	l, ok := p.links.get(want.Name)
	peer, peerOK := p.links.get(want.Peer)
	for _, other := range []*modelLink{l, peer} {
		if other != nil && !p.owner.ownsDevice(other.Link) {
			p.fail("", "device %q exists and is not ours", other.Name)
			p.blockedPort[want.Name], p.blockedPort[want.Peer] = true, true
			return
		}
	}
	if !ok || !peerOK {
		p.create("", want.Name, AddLoop{Loop: want, Group: p.owner.newGroup()}, p.roomFor(nameKey(want.Name), nameKey(want.Peer)))
		p.last[want.Peer] = p.last[want.Name]
		end := Link{Name: want.Name, Parent: want.Peer, Kind: "veth", NoARP: true, MAC: loopMAC, MTU: want.MTU, Group: p.owner.newGroup()}
		l = p.links.add(end)
		end.Name, end.Parent = want.Peer, want.Name
		peer = p.links.add(end)
	}
	p.rename("", l, p.owner.loopAlias())
	p.rename("", peer, p.owner.peerAlias())
	p.setMTU(l, want.MTU)
	p.setMTU(peer, want.MTU)
	if l.Up && peer.Up {
		return
	}
	// Each has a carrier while the other is up: what is on one needs both.
	p.up("", l, peer.Name)
	p.up("", peer, l.Name)
	l.fresh, peer.fresh = true, true
	latest := max(p.last[l.Name], p.last[peer.Name])
	p.last[l.Name], p.last[peer.Name] = latest, latest
}

func (p *planner) setMTU(l *modelLink, mtu int) {
	if mtu == 0 || l.MTU == mtu {
		return
	}
	p.deviceStep("", l.Name, SetMTU{Device: l.Name, MTU: mtu})
	l.MTU = mtu
}

// wantsTunnel says that a device is one of the wanted tunnels and loops.
func (p *planner) wantsTunnel(name string) bool {
	return slices.ContainsFunc(p.tunnels, func(t TunnelDevice) bool { return t.Name == name }) ||
		slices.ContainsFunc(p.loops, func(l Loop) bool { return l.Name == name || l.Peer == name })
}

// removeTunnels deletes the tunnels and loops of ours that are not wanted.
func (p *planner) removeTunnels() {
	for _, name := range p.links.names() {
		l, ok := p.links.get(name)
		if !ok || !p.owner.ownsDevice(l.Link) || p.wantsTunnel(name) {
			continue
		}
		p.step("", DeleteLink{Device: name}, nil)
		p.links.remove(name)
	}
}
