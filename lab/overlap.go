package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/egret-router/egret/lab/traffic"
)

// Addresses of the Overlap topology, for configurations and assertions.
const (
	ClientA4 = "10.244.1.10" // of team a
	ClientA6 = "fd00:244:1::10"
	ClientB4 = "10.244.2.10" // of team b
	ClientB6 = "fd00:244:2::10"

	GatewayClient4 = "10.244.0.1" // on eth0
	GatewayClient6 = "fd00:244::1"

	// The transfer networks are the same on both sides; the gateway's own addresses are given by Egret.
	Transfer4        = "172.16.0.0/30"
	Transfer6        = "fd00:16::/64"
	TransferGateway4 = "172.16.0.1"
	TransferGateway6 = "fd00:16::1"
	TransferRouter4  = "172.16.0.2"
	TransferRouter6  = "fd00:16::2"

	// The destination and the server in it are the same on both sides.
	Destination4 = "10.0.0.0/24"
	Destination6 = "fd00:10::/64"
	Server4      = "10.0.0.5"
	Server6      = "fd00:10::5"

	// The routers accept these from the gateway, and all prefixes within them.
	RedPool4  = "198.51.100.0/24"
	RedPool6  = "2001:db8:51::/48"
	BluePool4 = "203.0.113.0/24"
	BluePool6 = "2001:db8:113::/48"

	GatewayASN = 64512
	RedASN     = 65001
	BlueASN    = 65002
)

// Ports of the servers.
const (
	HTTPPort = 80
	TCPPort  = 7
	UDPPort  = 7
)

// OverlapOptions are what tests vary; the zero value is the usual.
type OverlapOptions struct {
	// RPFilter is net.ipv4.conf.{all,default}.rp_filter of the gateway before Egret starts.
	RPFilter int
	// HoldTime and NoGracefulRestart are those of both routers.
	HoldTime          time.Duration
	NoGracefulRestart bool
	// BFDInterval makes both routers run BFD sessions with the gateway in both
	// families; 0 is none. BFDMult is their multiplier, 3 if 0.
	BFDInterval time.Duration
	BFDMult     int
}

// An Overlap is the standard topology: one gateway between clients and two
// external networks which use the same addresses.
//
//	             +-- eth1 gateway's uplink -- eth0 red-router srv0 -- eth0 red-server
//	client c0 -- eth0 gw
//	             +-- eth2 gateway's uplink -- eth0 blue-router srv0 -- eth0 blue-server
//
// The client has the addresses of two teams. In the gateway only eth0 has
// addresses, nothing forwards, and no routing program runs: all that is Egret's.
type Overlap struct {
	*Lab
	EgretHost // the gateway

	Client, Gateway *NS
	Red, Blue       *Upstream
}

// An Upstream is one external network: a router, with FRR in red and BIRD in
// blue, and a server behind it.
type Upstream struct {
	Name     string // "red" or "blue"
	Uplink   string // the gateway's interface
	ASN      uint32
	RouterNS *NS // "red-router"; its eth0 leads to the gateway, srv0 to the server
	Router   *Router
	ServerNS *NS // "red-server"
	Server   *traffic.Server
}

// NewOverlap builds the topology in an empty lab and waits until both routers
// run. It needs the features FRR and BIRD; Egret needs more.
func NewOverlap(l *Lab, opts OverlapOptions) (*Overlap, error) {
	o := &Overlap{
		Lab:  l,
		Red:  &Upstream{Name: "red", Uplink: "eth1", ASN: RedASN},
		Blue: &Upstream{Name: "blue", Uplink: "eth2", ASN: BlueASN},
	}
	if err := o.build(opts); err != nil {
		return nil, fmt.Errorf("build overlap: %w", err)
	}
	return o, nil
}

// MustOverlap is NewOverlap for tests.
func MustOverlap(l *Lab, opts OverlapOptions) *Overlap {
	l.helper()
	o, err := NewOverlap(l, opts)
	l.check(err)
	return o
}

// Upstreams are both external networks, for loops.
func (o *Overlap) Upstreams() []*Upstream { return []*Upstream{o.Red, o.Blue} }

// Upstream is the external network of this name.
func (o *Overlap) Upstream(name string) (*Upstream, error) {
	for _, u := range o.Upstreams() {
		if u.Name == name {
			return u, nil
		}
	}
	return nil, fmt.Errorf("no upstream %q", name)
}

func (o *Overlap) build(opts OverlapOptions) error {
	if err := o.buildSpaces(); err != nil {
		return err
	}
	o.host = o.Gateway
	if err := o.prepareGateway(opts); err != nil {
		return err
	}
	if err := o.buildClients(); err != nil {
		return err
	}
	var routers errgroup.Group
	for _, u := range o.Upstreams() {
		if err := o.buildUpstream(u); err != nil {
			return err
		}
		routers.Go(func() error { return u.startRouter(opts) })
	}
	return routers.Wait()
}

func (o *Overlap) buildSpaces() error {
	for _, s := range []struct {
		name string
		ns   **NS
	}{
		{"client", &o.Client}, {"gw", &o.Gateway},
		{"red-router", &o.Red.RouterNS}, {"blue-router", &o.Blue.RouterNS},
		{"red-server", &o.Red.ServerNS}, {"blue-server", &o.Blue.ServerNS},
	} {
		ns, err := o.Namespace(s.name)
		if err != nil {
			return err
		}
		*s.ns = ns
		for _, key := range []string{"all", "default"} {
			if err := ns.Sysctl("net.ipv4.conf."+key+".rp_filter", "0"); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepareGateway makes the gateway like a machine that nobody has prepared:
// before there are links, so that these inherit the settings.
func (o *Overlap) prepareGateway(opts OverlapOptions) error {
	settings := map[string]string{"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0"}
	for _, key := range []string{"all", "default"} {
		settings["net.ipv4.conf."+key+".rp_filter"] = strconv.Itoa(opts.RPFilter)
		settings["net.ipv6.conf."+key+".accept_dad"] = "1"
	}
	for key, value := range settings {
		if err := o.Gateway.Sysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (o *Overlap) buildClients() error {
	if err := o.Link(o.Client, "c0", o.Gateway, "eth0"); err != nil {
		return err
	}
	if err := o.Gateway.IP("addr add "+GatewayClient4+"/16 dev eth0", "addr add "+GatewayClient6+"/32 dev eth0 nodad"); err != nil {
		return err
	}
	for _, address := range []string{ClientA4, ClientB4, ClientA6, ClientB6} {
		if err := o.AddClient(netip.MustParseAddr(address)); err != nil {
			return err
		}
	}
	return o.Client.IP("route add 0.0.0.0/0 via "+GatewayClient4, "route add ::/0 via "+GatewayClient6)
}

// AddClient gives the client namespace one more address; it must lie in
// 10.244.0.0/16 or fd00:244::/32.
func (o *Overlap) AddClient(address netip.Addr) error {
	if address.Is6() {
		return o.Client.IP(fmt.Sprintf("addr add %s/32 dev c0 nodad", address))
	}
	return o.Client.IP(fmt.Sprintf("addr add %s/16 dev c0", address))
}

func (o *Overlap) buildUpstream(u *Upstream) error {
	if err := errors.Join(
		o.Link(o.Gateway, u.Uplink, u.RouterNS, "eth0"),
		o.Link(u.RouterNS, "srv0", u.ServerNS, "eth0"),
		u.RouterNS.IP("addr add "+TransferRouter4+"/30 dev eth0", "addr add "+TransferRouter6+"/64 dev eth0 nodad",
			"addr add 10.0.0.1/24 dev srv0", "addr add fd00:10::1/64 dev srv0 nodad"),
		u.connectServer(),
	); err != nil {
		return err
	}
	err := u.ServerNS.Do(func() (err error) {
		u.Server, err = traffic.Listen(traffic.ServerConfig{Name: u.Name, HTTP: HTTPPort, TCP: TCPPort, UDP: UDPPort})
		return err
	})
	if err == nil {
		o.Defer(u.Server.Close)
	}
	return err
}

// connectServer also repairs what a link that was down has lost.
func (u *Upstream) connectServer() error {
	if err := u.ServerNS.SetLink("eth0", true); err != nil {
		return err
	}
	return u.ServerNS.IP("addr replace "+Server4+"/24 dev eth0", "addr replace "+Server6+"/64 dev eth0 nodad",
		"route replace 0.0.0.0/0 via 10.0.0.1", "route replace ::/0 via fd00:10::1")
}

func (u *Upstream) startRouter(opts OverlapOptions) error {
	c := RouterConfig{
		ASN: u.ASN, RouterID: netip.MustParseAddr(TransferRouter4),
		HoldTime: opts.HoldTime, NoGracefulRestart: opts.NoGracefulRestart,
	}
	for _, peer := range []string{TransferGateway4, TransferGateway6} {
		c.Peers = append(c.Peers, RouterPeer{Address: netip.MustParseAddr(peer), ASN: GatewayASN})
	}
	if opts.BFDInterval != 0 {
		c.BFD = []RouterBFD{u.bfdEnd(opts, TransferGateway4, TransferRouter4), u.bfdEnd(opts, TransferGateway6, TransferRouter6)}
	}
	for _, p := range []string{Destination4, Destination6} {
		c.Announce = append(c.Announce, netip.MustParsePrefix(p))
	}
	// Both accept both pools: a prefix that leaks into the other network must be seen there.
	for _, p := range []string{RedPool4, RedPool6, BluePool4, BluePool6} {
		c.Accept = append(c.Accept, netip.MustParsePrefix(p))
	}
	start := StartFRR
	if u.Name == "blue" {
		start = StartBIRD
	}
	var err error
	u.Router, err = start(u.RouterNS, c)
	return err
}

func (u *Upstream) bfdEnd(opts OverlapOptions, gateway, router string) RouterBFD {
	return RouterBFD{Peer: netip.MustParseAddr(gateway), Local: netip.MustParseAddr(router), Device: "eth0",
		Interval: opts.BFDInterval, Mult: opts.BFDMult}
}

// CutBeyond takes the link between an upstream's router and its server down.
// The router goes on announcing the destination; only a probe can tell.
func (o *Overlap) CutBeyond(upstream string) error {
	u, err := o.Upstream(upstream)
	if err != nil {
		return err
	}
	return u.ServerNS.SetLink("eth0", false)
}

// Heal undoes CutBeyond.
func (o *Overlap) Heal(upstream string) error {
	u, err := o.Upstream(upstream)
	if err != nil {
		return err
	}
	return u.connectServer()
}

// Sniff watches what arrives at an upstream's router from the gateway, until
// the sniffer's Stop. The gateway's transfer addresses are always allowed
// as sources.
func (o *Overlap) Sniff(upstream string, allowed ...netip.Prefix) (*traffic.Sniffer, error) {
	u, err := o.Upstream(upstream)
	if err != nil {
		return nil, err
	}
	for _, own := range []string{TransferGateway4, TransferGateway6} {
		a := netip.MustParseAddr(own)
		allowed = append(allowed, netip.PrefixFrom(a, a.BitLen()))
	}
	var s *traffic.Sniffer
	err = u.RouterNS.Do(func() (err error) {
		s, err = traffic.OpenSniffer(traffic.SnifferOptions{Device: "eth0", Direction: traffic.In, Allowed: allowed})
		return err
	})
	return s, err
}

// Ask fetches from a server over HTTP, from a client's address and port (0 for
// any), and returns who answered and whom it saw.
func (o *Overlap) Ask(ctx context.Context, source netip.AddrPort, server netip.Addr) (traffic.Answer, error) {
	var a traffic.Answer
	err := o.Client.Do(func() (err error) {
		a, err = traffic.FetchAnswer(ctx, source, netip.AddrPortFrom(server, HTTPPort))
		return err
	})
	return a, err
}

// Stream opens a stream from the client; the caller runs it.
func (o *Overlap) Stream(opts traffic.StreamOptions) (*traffic.Stream, error) {
	var s *traffic.Stream
	err := o.Client.Do(func() (err error) {
		s, err = traffic.OpenStream(opts)
		return err
	})
	return s, err
}

// Exchange opens a TCP connection from a client's address to a server.
func (o *Overlap) Exchange(ctx context.Context, source netip.AddrPort, server netip.Addr) (*traffic.Connection, error) {
	var x *traffic.Connection
	err := o.Client.Do(func() (err error) {
		x, err = traffic.DialExchange(ctx, source, netip.AddrPortFrom(server, TCPPort))
		return err
	})
	return x, err
}

// Inject sends a forged packet to the gateway, from "client" or from the router of an
// upstream, whatever the routes there say.
func (o *Overlap) Inject(ctx context.Context, from string, in traffic.Injection) error {
	ns, device, via4, via6 := o.Client, "c0", GatewayClient4, GatewayClient6
	if from != "client" {
		u, err := o.Upstream(from)
		if err != nil {
			return err
		}
		ns, device, via4, via6 = u.RouterNS, "eth0", TransferGateway4, TransferGateway6
	}
	in.Device, in.Via = device, netip.MustParseAddr(via4)
	if in.Dest.Addr().Is6() {
		in.Via = netip.MustParseAddr(via6)
	}
	return ns.Do(func() error { return traffic.Inject(ctx, in) })
}
