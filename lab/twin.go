package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/egret-router/egret/lab/traffic"
)

// ClientsASN is that of the clients' router in the Twin topology.
const ClientsASN = 64600

// A Twin is two gateways into the same external network, behind a router of the
// clients that speaks BGP with both (FRR) and spreads flows over them:
//
//	               +-- eth0 gw1 eth1 -- eth0 up1 srv0 --+
//	client c0 -- router                                 +-- server
//	               +-- eth0 gw2 eth1 -- eth0 up2 srv0 --+
//
// Both gateways use the transfer network of the Overlap topology, and each has a
// slice of the pool, which the server reaches by that gateway's upstream router
// (BIRD). Replies return to the gateway that sent the request, and from it to the
// clients' router.
type Twin struct {
	*Lab
	Client, RouterNS, ServerNS *NS
	// Router is the clients' router.
	Router   *Router
	Server   *traffic.Server
	Gateways [2]*TwinGateway
}

// A TwinGateway is one of them, with its upstream.
type TwinGateway struct {
	EgretHost
	N          int // 1 or 2
	NS         *NS
	UpstreamNS *NS
	Upstream   *Router
}

// TwinClient is the address of a client's namespace, of 0 to 199.
func TwinClient(f Family, n int) netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte{10, 244, 1, byte(10 + n)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:244:1::%x", 0x10+n))
}

// Slice is the gateway's part of the pools.
func (g *TwinGateway) Slice(f Family) netip.Prefix {
	if f == IPv4 {
		return netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/28", 16*g.N))
	}
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:51:%d::/124", g.N))
}

// Target is an address of the server for the gateway's probes: both gateways have
// the same transfer address, and this one answers by the gateway's upstream.
func (g *TwinGateway) Target() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + g.N)}) }

// Side is the gateway's address on the clients' side; Neighbour is that of the
// clients' router on the same link.
func (g *TwinGateway) Side(f Family) netip.Addr { return g.link(f, 2) }

// Neighbour see Side.
func (g *TwinGateway) Neighbour(f Family) netip.Addr { return g.link(f, 1) }

func (g *TwinGateway) link(f Family, host int) netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte{10, 200, byte(g.N), byte(host)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:200:%d::%d", g.N, host))
}

// MustTwin builds the topology with some client addresses of each family in an
// empty lab, and waits until the routers run. It needs FRR and BIRD.
func MustTwin(l *Lab, clients int) *Twin {
	l.helper()
	t := &Twin{Lab: l}
	l.check(t.build(clients))
	return t
}

func (t *Twin) build(clients int) error {
	var err error
	space := func(name string) *NS {
		ns, e := t.Namespace(name)
		if e == nil {
			e = errors.Join(ns.Sysctl("net.ipv4.conf.all.rp_filter", "0"), ns.Sysctl("net.ipv4.conf.default.rp_filter", "0"))
		}
		err = errors.Join(err, e)
		return ns
	}
	t.Client, t.RouterNS, t.ServerNS = space("client"), space("router"), space("server")
	for i := range t.Gateways {
		g := &TwinGateway{N: i + 1, NS: space(fmt.Sprint("gw", i+1)), UpstreamNS: space(fmt.Sprint("up", i+1))}
		g.host = g.NS
		t.Gateways[i] = g
	}
	if err != nil {
		return err
	}
	if err := t.clients(clients); err != nil {
		return err
	}
	var routers errgroup.Group
	for _, g := range t.Gateways {
		if err := t.gateway(g); err != nil {
			return fmt.Errorf("build gateway %d: %w", g.N, err)
		}
		routers.Go(g.startUpstream)
	}
	routers.Go(t.startRouter)
	if err := t.serve(); err != nil {
		return err
	}
	return routers.Wait()
}

func (t *Twin) clients(n int) error {
	if err := t.Link(t.Client, "c0", t.RouterNS, "lan0"); err != nil {
		return err
	}
	commands := []string{}
	for i := range n {
		commands = append(commands, fmt.Sprintf("addr add %s/24 dev c0", TwinClient(IPv4, i)), fmt.Sprintf("addr add %s/48 dev c0 nodad", TwinClient(IPv6, i)))
	}
	commands = append(commands, "route add 0.0.0.0/0 via 10.244.1.1", "route add ::/0 via fd00:244:1::1")
	r := t.RouterNS
	return errors.Join(r.IP("addr add 10.244.1.1/24 dev lan0", "addr add fd00:244:1::1/48 dev lan0 nodad"), t.Client.IP(commands...),
		r.Sysctl("net.ipv4.ip_forward", "1"), r.Sysctl("net.ipv6.conf.all.forwarding", "1"),
		r.Sysctl("net.ipv4.fib_multipath_hash_policy", "1"), r.Sysctl("net.ipv6.fib_multipath_hash_policy", "1"))
}

// gateway builds one gateway's links, the way back to the clients included.
func (t *Twin) gateway(g *TwinGateway) error {
	side, srv := fmt.Sprint("g", g.N), fmt.Sprint("s", g.N)
	if err := errors.Join(t.Link(t.RouterNS, side, g.NS, "eth0"), t.Link(g.NS, "eth1", g.UpstreamNS, "eth0"),
		t.Link(g.UpstreamNS, "srv0", t.ServerNS, srv)); err != nil {
		return err
	}
	up := g.UpstreamNS
	return errors.Join(
		t.RouterNS.IP(fmt.Sprintf("addr add %s/24 dev %s", g.Neighbour(IPv4), side), fmt.Sprintf("addr add %s/64 dev %s nodad", g.Neighbour(IPv6), side)),
		g.NS.IP(fmt.Sprintf("addr add %s/24 dev eth0", g.Side(IPv4)), fmt.Sprintf("addr add %s/64 dev eth0 nodad", g.Side(IPv6)),
			fmt.Sprintf("route add 10.244.0.0/16 via %s", g.Neighbour(IPv4)), fmt.Sprintf("route add fd00:244::/32 via %s", g.Neighbour(IPv6))),
		up.Sysctl("net.ipv4.ip_forward", "1"), up.Sysctl("net.ipv6.conf.all.forwarding", "1"),
		up.IP("addr add "+TransferRouter4+"/30 dev eth0", "addr add "+TransferRouter6+"/64 dev eth0 nodad",
			fmt.Sprintf("addr add 10.1.%d.1/24 dev srv0", g.N), fmt.Sprintf("addr add fd00:1:%d::1/64 dev srv0 nodad", g.N)),
		t.ConnectServer(g.N))
}

// ConnectServer connects a gateway's upstream with the server, also again after
// CutBeyond.
func (t *Twin) ConnectServer(n int) error {
	g, srv := t.Gateways[n-1], fmt.Sprint("s", n)
	return errors.Join(t.ServerNS.SetLink(srv, true), t.ServerNS.IP(
		fmt.Sprintf("addr replace 10.1.%d.2/24 dev %s", n, srv), fmt.Sprintf("addr replace fd00:1:%d::2/64 dev %s nodad", n, srv),
		fmt.Sprintf("route replace %s via 10.1.%d.1", g.Slice(IPv4), n), fmt.Sprintf("route replace %s via fd00:1:%d::1", g.Slice(IPv6), n),
		fmt.Sprintf("route replace 0.0.0.0/0 via 10.1.%d.1 table %d", n, 100+n)),
		g.UpstreamNS.IP(fmt.Sprintf("route replace 10.0.0.0/24 via 10.1.%d.2", n), fmt.Sprintf("route replace fd00:10::/64 via fd00:1:%d::2", n)))
}

// CutBeyond takes the link between a gateway's upstream and the server down: the
// upstream goes on announcing the destination.
func (t *Twin) CutBeyond(n int) error { return t.ServerNS.SetLink(fmt.Sprint("s", n), false) }

func (t *Twin) serve() error {
	if err := t.ServerNS.IP("addr add "+Server4+" dev lo", "addr add "+Server6+" dev lo"); err != nil {
		return err
	}
	for _, g := range t.Gateways {
		if err := t.ServerNS.IP(fmt.Sprintf("addr add %s dev lo", g.Target()), fmt.Sprintf("rule add from %s lookup %d", g.Target(), 100+g.N)); err != nil {
			return err
		}
	}
	err := t.ServerNS.Do(func() (err error) {
		t.Server, err = traffic.Listen(traffic.ServerConfig{Name: "far", HTTP: HTTPPort, TCP: TCPPort, UDP: UDPPort})
		return err
	})
	if err == nil {
		t.Defer(t.Server.Close)
	}
	return err
}

func (g *TwinGateway) startUpstream() (err error) {
	c := RouterConfig{ASN: RedASN, RouterID: netip.MustParseAddr(TransferRouter4),
		Announce: []netip.Prefix{netip.MustParsePrefix(Destination4), netip.MustParsePrefix(Destination6)},
		Accept:   []netip.Prefix{netip.MustParsePrefix(RedPool4), netip.MustParsePrefix(RedPool6)}}
	for _, peer := range []string{TransferGateway4, TransferGateway6} {
		c.Peers = append(c.Peers, RouterPeer{Address: netip.MustParseAddr(peer), ASN: GatewayASN})
	}
	g.Upstream, err = StartBIRD(g.UpstreamNS, c)
	return err
}

func (t *Twin) startRouter() (err error) {
	c := RouterConfig{ASN: ClientsASN, RouterID: netip.MustParseAddr("10.244.1.1"),
		Accept: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00:10::/32")}}
	for _, g := range t.Gateways {
		for _, f := range Families() {
			c.Peers = append(c.Peers, RouterPeer{Address: g.Side(f), ASN: GatewayASN})
		}
	}
	t.Router, err = StartFRR(t.RouterNS, c)
	return err
}

// Ask fetches from the server over HTTP from a client's address.
func (t *Twin) Ask(ctx context.Context, source netip.AddrPort, server netip.Addr) (a traffic.Answer, err error) {
	err = t.Client.Do(func() error {
		a, err = traffic.FetchAnswer(ctx, source, netip.AddrPortFrom(server, HTTPPort))
		return err
	})
	return a, err
}

// Stream opens a stream from a client; the caller runs it.
func (t *Twin) Stream(opts traffic.StreamOptions) (s *traffic.Stream, err error) {
	err = t.Client.Do(func() error {
		s, err = traffic.OpenStream(opts)
		return err
	})
	return s, err
}
