package lab

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/lab/traffic"
)

// Numbers of autonomous systems of a Cluster's networks.
const (
	ClusterASN         = 64512 // of the gateways
	ClusterUpstreamASN = 65001
)

// clusterPools are what routers of the networks accept from gateways.
var clusterPools = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:51::/48")}

// AddNetwork makes one more network outside, on a device of all gateway nodes, with
// the same transfer network, servers and routes as the first one: they overlap in
// everything.
func (c *Cluster) AddNetwork(name, device string) (*NS, error) {
	ns, err := c.Namespace(name)
	if err != nil {
		return nil, err
	}
	if err := c.lan.IP("link add "+name+" type bridge", "link set "+name+" up"); err != nil {
		return nil, err
	}
	if err := c.plug(ns, "up0", name, name+"-up"); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		if n.Gateway {
			if err := c.plug(n.NS, device, name, fmt.Sprintf("n%d-%s", n.Number, device)); err != nil {
				return nil, err
			}
		}
	}
	if err := ns.IP("addr add "+clusterOutside4+"/24 dev up0", "addr add "+clusterOutside6+"/64 dev up0",
		"addr add "+ClusterServer4+"/32 dev lo", "addr add "+ClusterServer6+"/128 dev lo"); err != nil {
		return nil, err
	}
	return ns, ns.Do(func() error {
		s, err := traffic.Listen(traffic.ServerConfig{Name: name, HTTP: HTTPPort, TCP: TCPPort, UDP: UDPPort})
		if err == nil {
			c.Defer(s.Close)
		}
		return err
	})
}

// StartRouter runs FRR as the router of a network outside, which learns the pools
// from the gateways in place of the routes to them that were there, and announces
// the way to everything.
func (c *Cluster) StartRouter(ns *NS) (*Router, error) {
	config := RouterConfig{ASN: ClusterUpstreamASN, RouterID: netip.MustParseAddr(clusterOutside4), Accept: clusterPools,
		Announce: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	for _, n := range c.Nodes {
		if !n.Gateway {
			continue
		}
		own4, _ := n.Uplink4()
		own6, _ := n.Uplink6()
		config.Peers = append(config.Peers, RouterPeer{Address: own4.Addr(), ASN: ClusterASN}, RouterPeer{Address: own6.Addr(), ASN: ClusterASN})
		if ns == c.Outside {
			if err := ns.IP(fmt.Sprintf("route del %s/32", n.Pool4()), fmt.Sprintf("route del %s/128", n.Pool6())); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(config.Peers, func(a, b RouterPeer) int { return a.Address.Compare(b.Address) })
	return StartFRR(ns, config)
}
