package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/egret-router/egret/lab/traffic"
)

// Addresses of the Cluster topology. N is the node's number, from 1.
const (
	ClusterPods4    = "10.244.0.0/16"
	ClusterPods6    = "fd00:244::/32"
	ClusterServer4  = "10.0.0.5"
	ClusterServer6  = "fd00:10::5"
	ClusterOther4   = "10.0.1.5" // of the same server
	ClusterOther6   = "fd00:11::5"
	ClusterWAN4     = "192.0.2.254" // the nodes' way out without gateways
	ClusterWAN6     = "2001:db8:2::fe"
	ClusterUpstream = "eth1" // of gateway nodes

	clusterOutside4 = "172.16.0.254" // the router of the gateways' uplinks
	clusterOutside6 = "fd00:16::fe"
)

// A ClusterNode is a node with a CNI: pods behind a bridge, and a masquerade of what
// they send out of the cluster.
type ClusterNode struct {
	*NS
	EgretHost
	Number  int
	Gateway bool
	Pods    []*NS
}

// Addresses of a node.
func (n *ClusterNode) IP4() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(n.Number)}) }

// IP6 is the node's IPv6 address.
func (n *ClusterNode) IP6() netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:2::%x", n.Number))
}

// Pods4 and Pods6 are the prefixes of the node's pods.
func (n *ClusterNode) Pods4() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n.Number), 0}), 24)
}

// Pods6 is the prefix of the node's pods.
func (n *ClusterNode) Pods6() netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fd00:244:%x::/64", n.Number))
}

// PodAddress is that of the node's i-th pod, from 0.
func (n *ClusterNode) PodAddress(i int, ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.MustParseAddr(fmt.Sprintf("fd00:244:%x::%x", n.Number, 10+i))
	}
	return netip.AddrFrom4([4]byte{10, 244, byte(n.Number), byte(10 + i)})
}

// Uplink4 and Uplink6 are where a gateway node's uplink ends, with the router's
// address of the same network.
func (n *ClusterNode) Uplink4() (own netip.Prefix, router netip.Addr) {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 0, byte(n.Number)}), 24), netip.MustParseAddr(clusterOutside4)
}

// Uplink6 is Uplink4 for IPv6.
func (n *ClusterNode) Uplink6() (own netip.Prefix, router netip.Addr) {
	return netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd00:16::%x", n.Number)), 64), netip.MustParseAddr(clusterOutside6)
}

// Pool4 is the egress address that the outside routes to a gateway node.
func (n *ClusterNode) Pool4() netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(n.Number)})
}

// Pool6 is Pool4 for IPv6.
func (n *ClusterNode) Pool6() netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:51::%x", n.Number))
}

// A Cluster is nodes on one network, of which the first ones are clients and the
// others gateways, and a server outside that the nodes reach by their default route
// and the gateways by their uplinks as well.
//
//	pods -- cni0 node1 eth0 --+
//	pods -- cni0 node2 eth0 --+-- lan (a bridge) -- wan0 outside (the server)
//	pods -- cni0 node3 eth0 --+                     up0
//	             node3 eth1 ------- uplinks (a bridge) --+
//
// The outside knows the nodes and the pools, but no pods: what leaves with a pod's
// address is counted there (Leaks) and never answered.
type Cluster struct {
	*Lab
	Nodes   []*ClusterNode
	Outside *NS
	Server  *traffic.Server
	lan     *NS
}

// NewCluster builds the topology in an empty lab, with pods on each node.
func NewCluster(l *Lab, clients, gateways, pods int) (*Cluster, error) {
	c := &Cluster{Lab: l}
	if err := c.build(clients, gateways, pods); err != nil {
		return nil, fmt.Errorf("build cluster: %w", err)
	}
	return c, nil
}

// MustCluster is NewCluster for tests.
func MustCluster(l *Lab, clients, gateways, pods int) *Cluster {
	l.helper()
	c, err := NewCluster(l, clients, gateways, pods)
	l.check(err)
	return c
}

func (c *Cluster) build(clients, gateways, pods int) (err error) {
	if c.lan, err = c.Namespace("lan"); err != nil {
		return err
	}
	if c.Outside, err = c.Namespace("outside"); err != nil {
		return err
	}
	if err := c.lan.IP("link add lan type bridge", "link add uplinks type bridge", "link set lan up", "link set uplinks up"); err != nil {
		return err
	}
	for device, bridge := range map[string]string{"wan0": "lan", "up0": "uplinks"} {
		if err := c.plug(c.Outside, device, bridge, "out-"+device); err != nil {
			return err
		}
	}
	outside := []string{
		"addr add 192.0.2.254/24 dev wan0", "addr add 2001:db8:2::fe/64 dev wan0",
		"addr add 172.16.0.254/24 dev up0", "addr add fd00:16::fe/64 dev up0",
		"addr add 10.0.0.5/32 dev lo", "addr add fd00:10::5/128 dev lo",
		"addr add 10.0.1.5/32 dev lo", "addr add fd00:11::5/128 dev lo",
	}
	for i := range clients + gateways {
		n := &ClusterNode{Number: i + 1, Gateway: i >= clients}
		if err := c.node(n, pods); err != nil {
			return err
		}
		if n.Gateway {
			outside = append(outside, fmt.Sprintf("route add %s/32 via 172.16.0.%d", n.Pool4(), n.Number),
				fmt.Sprintf("route add %s/128 via fd00:16::%x", n.Pool6(), n.Number))
		}
	}
	if err := c.Outside.IP(outside...); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := c.connect(n); err != nil {
			return err
		}
	}
	if err := c.watch(); err != nil {
		return err
	}
	err = c.Outside.Do(func() (err error) {
		c.Server, err = traffic.Listen(traffic.ServerConfig{Name: "outside", HTTP: HTTPPort, TCP: TCPPort, UDP: UDPPort})
		return err
	})
	if err == nil {
		c.Defer(c.Server.Close)
	}
	return err
}

// watch counts and drops what comes to the outside with the address of a pod. The
// nodes' own addresses in those prefixes may come: in errors (ICMP) of a node whose
// uplink has no network any more.
func (c *Cluster) watch() error {
	var own4, own6 []string
	for _, n := range c.Nodes {
		own4, own6 = append(own4, n.Pods4().Addr().Next().String()), append(own6, n.Pods6().Addr().Next().String())
	}
	_, err := c.Outside.Run("nft", fmt.Sprintf(`table inet watch { counter leaks { }
set leaked4 { typeof ip saddr . ip daddr . meta l4proto . th sport . th dport; size 64; flags dynamic; }
set leaked6 { typeof ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport; size 64; flags dynamic; }
chain in { type filter hook prerouting priority -300;
ip saddr { %s } accept; ip6 saddr { %s } accept
ip saddr %[3]s counter name leaks add @leaked4 { ip saddr . ip daddr . meta l4proto . th sport . th dport }
ip6 saddr %[4]s counter name leaks add @leaked6 { ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport }
ip saddr %[3]s drop; ip6 saddr %[4]s drop; }; }`, strings.Join(own4, ", "), strings.Join(own6, ", "), ClusterPods4, ClusterPods6))
	return err
}

// plug connects a namespace to one of the bridges.
func (c *Cluster) plug(ns *NS, device, bridge, port string) error {
	if err := c.Link(ns, device, c.lan, port); err != nil {
		return err
	}
	return c.lan.IP("link set " + port + " master " + bridge)
}

// node makes a node with its pods and its CNI.
func (c *Cluster) node(n *ClusterNode, pods int) (err error) {
	if n.NS, err = c.Namespace(fmt.Sprintf("node%d", n.Number)); err != nil {
		return err
	}
	n.host = n.NS
	c.Nodes = append(c.Nodes, n)
	if err := c.plug(n.NS, "eth0", "lan", fmt.Sprintf("n%d-eth0", n.Number)); err != nil {
		return err
	}
	if n.Gateway {
		if err := c.plug(n.NS, ClusterUpstream, "uplinks", fmt.Sprintf("n%d-eth1", n.Number)); err != nil {
			return err
		}
	}
	for key, value := range map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"} {
		if err := n.Sysctl(key, value); err != nil {
			return err
		}
	}
	pods4, pods6 := n.Pods4(), n.Pods6()
	if err := n.IP("link add cni0 type bridge", "link set cni0 up",
		fmt.Sprintf("addr add %s/24 dev cni0", pods4.Addr().Next()), fmt.Sprintf("addr add %s/64 dev cni0", pods6.Addr().Next())); err != nil {
		return err
	}
	for i := range pods {
		if err := c.pod(n, i); err != nil {
			return err
		}
	}
	_, err = n.Run("nft", fmt.Sprintf(`table inet cni { chain out { type nat hook postrouting priority 100;
ip saddr %s ip daddr != { %s, 224.0.0.0/4 } masquerade; ip6 saddr %s ip6 daddr != { %s, ff00::/8 } masquerade; }; }`, pods4, ClusterPods4, pods6, ClusterPods6))
	return err
}

func (c *Cluster) pod(n *ClusterNode, i int) error {
	pod, err := c.Namespace(fmt.Sprintf("pod%d-%d", n.Number, i))
	if err != nil {
		return err
	}
	n.Pods = append(n.Pods, pod)
	port := fmt.Sprintf("pod%d", i)
	if err := c.Link(pod, "eth0", n.NS, port); err != nil {
		return err
	}
	if err := n.IP("link set " + port + " master cni0"); err != nil {
		return err
	}
	return pod.IP(fmt.Sprintf("addr add %s/24 dev eth0", n.PodAddress(i, false)), fmt.Sprintf("addr add %s/64 dev eth0", n.PodAddress(i, true)),
		"route add default via "+n.Pods4().Addr().Next().String(), "route add ::/0 via "+n.Pods6().Addr().Next().String())
}

// connect gives a node its addresses on the nodes' network, and its routes: the way
// out, and to the other nodes' pods.
func (c *Cluster) connect(n *ClusterNode) error {
	commands := []string{fmt.Sprintf("addr replace %s/24 dev eth0", n.IP4()), fmt.Sprintf("addr replace %s/64 dev eth0", n.IP6()),
		"route replace default via " + ClusterWAN4, "route replace ::/0 via " + ClusterWAN6}
	for _, other := range c.Nodes {
		if n != other {
			commands = append(commands, fmt.Sprintf("route replace %s via %s", other.Pods4(), other.IP4()), fmt.Sprintf("route replace %s via %s", other.Pods6(), other.IP6()))
		}
	}
	return n.IP(commands...)
}

// Reconnect puts a node back on the nodes' network, which had been taken from its eth0.
func (c *Cluster) Reconnect(n *ClusterNode) error {
	if err := n.SetLink("eth0", true); err != nil {
		return err
	}
	return c.connect(n)
}

// Leaks says what came to the outside with the address of a pod: nft's counter, and
// of which flows it was.
func (c *Cluster) Leaks() (string, error) {
	return c.Outside.Run("sh", "-c", "nft list counter inet watch leaks && nft list set inet watch leaked4 && nft list set inet watch leaked6")
}
