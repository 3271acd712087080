package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/egret-router/egret/lab/traffic"
)

// Addresses of the Fan topology. Clients, the gateway's eth0, and the servers'
// ports are those of Overlap.
const (
	FanTransfer4 = "172.16.0.0/24"
	FanTransfer6 = "fd00:16::/64"
	// FanOther4 and FanOther6 are second addresses of every server.
	FanOther4 = "10.0.0.6"
	FanOther6 = "fd00:10::6"
	// FanRouters is the number of routers.
	FanRouters = 4
)

// FanOptions are what tests vary.
type FanOptions struct {
	// Clients is how many addresses the client namespace has in each family.
	Clients int
}

// A Fan is one gateway with several ways to the same server: four routers on one
// transfer segment. A second network, blue, and the world that unmarked traffic
// is routed to, out, have servers with the same addresses.
//
//	                              +-- r1 eth0, srv0 --+
//	client c0 -- eth0 gw eth1 -- switch -- ... r4 ----+-- server (answers by the switch)
//	                     eth2 -- eth0 blue
//	                     eth3 -- eth0 out
//
// Replies come straight from the server, so that a router is only met by what
// the gateway sends it. The first router speaks BGP with the gateway; it
// announces nothing.
type Fan struct {
	*Lab
	EgretHost // the gateway

	Client, Gateway, Switch, Server, Blue, Out *NS
	Routers                                    []*NS
	// BGP is the speaker of the first router.
	BGP *Router
}

// FanClient is the address of a client, of 0 to 4095.
func FanClient(f Family, n int) netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte{10, 244, byte(16 + n/250), byte(1 + n%250)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:244:%x::%x", 16+n/250, 1+n%250))
}

// FanRouter is the address of a router, of 0 to 3.
func FanRouter(f Family, n int) netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte{172, 16, 0, byte(11 + n)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:16::%d", 11+n))
}

// MustFan builds the topology in an empty lab. It needs the feature BIRD.
func MustFan(l *Lab, opts FanOptions) *Fan {
	l.helper()
	f := &Fan{Lab: l}
	l.check(f.build(opts))
	return f
}

func (f *Fan) build(opts FanOptions) error {
	spaces := map[string]**NS{"client": &f.Client, "gw": &f.Gateway, "switch": &f.Switch, "server": &f.Server, "blue": &f.Blue, "out": &f.Out}
	for name, at := range spaces {
		ns, err := f.space(name)
		if err != nil {
			return err
		}
		*at = ns
	}
	f.host = f.Gateway
	if err := f.Switch.IP("link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up"); err != nil {
		return err
	}
	if err := errors.Join(f.clients(opts.Clients), f.servers()); err != nil {
		return err
	}
	for i := range FanRouters {
		if err := f.router(i); err != nil {
			return fmt.Errorf("build router %d: %w", i, err)
		}
	}
	return f.bgp()
}

// space makes a namespace whose links do not filter sources.
func (f *Fan) space(name string) (*NS, error) {
	ns, err := f.Namespace(name)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"all", "default"} {
		if err := ns.Sysctl("net.ipv4.conf."+key+".rp_filter", "0"); err != nil {
			return nil, err
		}
	}
	return ns, nil
}

func (f *Fan) clients(n int) error {
	if err := f.Link(f.Client, "c0", f.Gateway, "eth0"); err != nil {
		return err
	}
	var commands []string
	for i := range n {
		commands = append(commands, fmt.Sprintf("addr add %s/16 dev c0", FanClient(IPv4, i)), fmt.Sprintf("addr add %s/32 dev c0 nodad", FanClient(IPv6, i)))
	}
	commands = append(commands, "route add 0.0.0.0/0 via "+GatewayClient4, "route add ::/0 via "+GatewayClient6)
	return errors.Join(
		f.Gateway.IP("addr add "+GatewayClient4+"/16 dev eth0", "addr add "+GatewayClient6+"/32 dev eth0 nodad"),
		f.Client.IP(commands...))
}

// plug connects a namespace's device to the switch.
func (f *Fan) plug(ns *NS, device string) error {
	port := f.port(ns)
	if err := f.Link(f.Switch, port, ns, device); err != nil {
		return err
	}
	return f.Switch.IP("link set " + port + " master br0")
}

// port is the switch's port of a namespace.
func (f *Fan) port(ns *NS) string { return "p-" + ns.Name }

// servers builds red's server, blue and out, each with the same addresses.
func (f *Fan) servers() error {
	if err := errors.Join(f.plug(f.Gateway, "eth1"), f.plug(f.Server, "eth0"),
		f.Link(f.Gateway, "eth2", f.Blue, "eth0"), f.Link(f.Gateway, "eth3", f.Out, "eth0")); err != nil {
		return err
	}
	for _, s := range []struct {
		ns                 *NS
		name, own4, own6   string
		gateway4, gateway6 string
	}{
		{f.Server, "red", "172.16.0.100/24", "fd00:16::100/64", TransferGateway4, TransferGateway6},
		{f.Blue, "blue", "172.16.0.2/24", "fd00:16::2/64", TransferGateway4, TransferGateway6},
		{f.Out, "out", "192.0.2.2/24", "fd00:2::2/64", "192.0.2.1", "fd00:2::1"},
	} {
		commands := []string{"addr add " + s.own4 + " dev eth0", "addr add " + s.own6 + " dev eth0 nodad",
			"route add 0.0.0.0/0 via " + s.gateway4, "route add ::/0 via " + s.gateway6}
		for _, a := range []string{Server4, FanOther4, Server6, FanOther6} {
			commands = append(commands, "addr add "+a+" dev lo")
		}
		if err := s.ns.IP(commands...); err != nil {
			return err
		}
		if err := f.serve(s.ns, s.name); err != nil {
			return err
		}
	}
	return f.Gateway.IP("addr add 192.0.2.1/24 dev eth3", "addr add fd00:2::1/64 dev eth3 nodad",
		"route add 10.0.0.0/24 via 192.0.2.2", "route add fd00:10::/64 via fd00:2::2")
}

func (f *Fan) serve(ns *NS, name string) error {
	return ns.Do(func() error {
		s, err := traffic.Listen(traffic.ServerConfig{Name: name, HTTP: HTTPPort, TCP: TCPPort, UDP: UDPPort})
		if err == nil {
			f.Defer(s.Close)
		}
		return err
	})
}

func (f *Fan) router(i int) error {
	ns, err := f.space(fmt.Sprint("r", i+1))
	if err != nil {
		return err
	}
	f.Routers = append(f.Routers, ns)
	link := fmt.Sprint("s", i+1)
	if err := errors.Join(f.plug(ns, "eth0"), f.Link(ns, "srv0", f.Server, link),
		ns.Sysctl("net.ipv4.ip_forward", "1"), ns.Sysctl("net.ipv6.conf.all.forwarding", "1")); err != nil {
		return err
	}
	if err := f.Server.IP(fmt.Sprintf("addr add 10.1.%d.2/24 dev %s", i, link), fmt.Sprintf("addr add fd00:1:%d::2/64 dev %s nodad", i, link)); err != nil {
		return err
	}
	return ns.IP(fmt.Sprintf("addr add %s/24 dev eth0", FanRouter(IPv4, i)), fmt.Sprintf("addr add %s/64 dev eth0 nodad", FanRouter(IPv6, i)),
		fmt.Sprintf("addr add 10.1.%d.1/24 dev srv0", i), fmt.Sprintf("addr add fd00:1:%d::1/64 dev srv0 nodad", i),
		fmt.Sprintf("route add 10.0.0.0/24 via 10.1.%d.2", i), fmt.Sprintf("route add fd00:10::/64 via fd00:1:%d::2", i))
}

func (f *Fan) bgp() error {
	c := RouterConfig{ASN: RedASN, RouterID: FanRouter(IPv4, 0)}
	for _, peer := range []string{TransferGateway4, TransferGateway6} {
		c.Peers = append(c.Peers, RouterPeer{Address: netip.MustParseAddr(peer), ASN: GatewayASN})
	}
	for _, p := range []string{RedPool4, RedPool6} {
		c.Accept = append(c.Accept, netip.MustParsePrefix(p))
	}
	var err error
	f.BGP, err = StartBIRD(f.Routers[0], c)
	return err
}

// SetRouter plugs a router's cable into the switch, or pulls it. The gateway
// keeps its carrier.
func (f *Fan) SetRouter(i int, plugged bool) error {
	return f.Switch.SetLink(f.port(f.Routers[i]), plugged)
}

// SetEcho lets a router answer echo requests, or be silent; it forwards in any
// case.
func (f *Fan) SetEcho(i int, answers bool) error {
	ignore := "1"
	if answers {
		ignore = "0"
	}
	ns := f.Routers[i]
	return errors.Join(ns.Sysctl("net.ipv4.icmp_echo_ignore_all", ignore), ns.Sysctl("net.ipv6.icmp.echo_ignore_all", ignore))
}

// SniffRouter watches what a router hands on to the server.
func (f *Fan) SniffRouter(i int, o traffic.SnifferOptions) (*traffic.Sniffer, error) {
	o.Device, o.Direction = "srv0", traffic.Out
	return f.sniff(f.Routers[i], o)
}

// SniffGateway watches what the gateway sends to the switch.
func (f *Fan) SniffGateway(o traffic.SnifferOptions) (*traffic.Sniffer, error) {
	o.Device, o.Direction = f.port(f.Gateway), traffic.In
	return f.sniff(f.Switch, o)
}

// SniffClient watches what arrives at the clients.
func (f *Fan) SniffClient(o traffic.SnifferOptions) (*traffic.Sniffer, error) {
	o.Device, o.Direction = "c0", traffic.In
	return f.sniff(f.Client, o)
}

func (f *Fan) sniff(ns *NS, o traffic.SnifferOptions) (s *traffic.Sniffer, err error) {
	err = ns.Do(func() error {
		s, err = traffic.OpenSniffer(o)
		return err
	})
	return s, err
}

// FanNextHops lists the routers' addresses of a family for a configuration.
func FanNextHops(f Family, routers ...int) string {
	var out []string
	for _, i := range routers {
		out = append(out, `"`+FanRouter(f, i).String()+`"`)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
