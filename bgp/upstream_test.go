package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"

	"github.com/egret-router/egret/lab"
)

// deadline is generous: machines are slow when they are shared.
const deadline = 90 * time.Second

const gatewayASN = 64512

var gatewayAddress = netip.MustParseAddr("127.0.0.1")

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// anything accepts all prefixes of both families.
var anything = []ImportRule{
	{Prefix: prefix("0.0.0.0/0"), Min: 0, Max: 32}, {Prefix: prefix("::/0"), Min: 0, Max: 128},
}

// freePort returns a TCP port that nobody listened on a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// upstream is a GoBGP server of its own on a loopback address, as an external
// network's router.
type upstream struct {
	t    *testing.T
	bgp  *gobgp.BgpServer
	addr netip.Addr
	asn  uint32
	port int
	// dials is true if it dials, and then only it does. When two GoBGPs dial at the
	// same moment, each may settle for its own connection (RFC 4271 6.8 is only
	// done where both OPEN messages are in), and both wait for the hold timer.
	dials bool
}

type upstreamConfig struct {
	addr    string
	asn     uint32
	gateway int    // the port of the gateway, if the upstream is to dial
	expect  uint32 // the gateway's ASN, if another one than it has
	restart bool   // graceful restart, as a helper and by itself
	time    uint32 // its restart time, in seconds
	ipv6    bool   // over the same session
	port    int
	again   bool // restarting
	change  func(*api.Peer)
	log     *journal // what it logs, if not nil
	long    uint32   // long-lived graceful restart, in seconds
}

func startUpstream(t *testing.T, c upstreamConfig) *upstream {
	t.Helper()
	if c.port == 0 {
		c.port = freePort(t)
	}
	u := &upstream{t: t, addr: addr(c.addr), asn: c.asn, port: c.port, dials: c.gateway != 0}
	log := slog.New(slog.DiscardHandler)
	if c.log != nil {
		log = slog.New(slog.NewTextHandler(c.log, nil))
	}
	u.bgp = gobgp.NewBgpServer(gobgp.LoggerOption(log, nil))
	go u.bgp.Serve()
	ctx := context.Background()
	err := u.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: c.asn, RouterId: c.addr, ListenPort: int32(c.port), ListenAddresses: []string{c.addr}, Families: []uint32{0, 1},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.stop)
	expect := c.expect
	if expect == 0 {
		expect = gatewayASN
	}
	peer := &api.Peer{
		Conf:   &api.PeerConf{NeighborAddress: gatewayAddress.String(), PeerAsn: expect, AllowAspathLoopLocal: true},
		Timers: &api.Timers{Config: &api.TimersConfig{ConnectRetry: 2}},
		Transport: &api.Transport{
			LocalAddress: c.addr, RemotePort: uint32(c.gateway), PassiveMode: c.gateway == 0,
		},
	}
	if c.restart {
		if c.time == 0 {
			c.time = 120
		}
		peer.GracefulRestart = &api.GracefulRestart{Enabled: true, RestartTime: c.time, DeferralTime: 1, LocalRestarting: c.again, LonglivedEnabled: c.long > 0}
	}
	for f := range families {
		if f == ipv4 || c.ipv6 {
			peer.AfiSafis = append(peer.AfiSafis, &api.AfiSafi{
				Config:            &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true},
				MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: c.restart}},
				LongLivedGracefulRestart: &api.LongLivedGracefulRestart{
					Config: &api.LongLivedGracefulRestartConfig{Enabled: c.long > 0, RestartTime: c.long},
				},
			})
		}
	}
	if c.change != nil {
		c.change(peer)
	}
	if err := u.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: peer}); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *upstream) stop() {
	if u.bgp != nil {
		u.bgp.Stop()
		u.bgp = nil
	}
}

// die ends the connections without a NOTIFICATION.
func (u *upstream) die() {
	_ = u.bgp.StopBgp(context.Background(), &api.StopBgpRequest{AllowGracefulRestart: true})
	u.stop()
}

// peer is the gateway's configuration for this upstream.
func (u *upstream) peer(rules ...ImportRule) Peer {
	return Peer{Address: u.addr, ASN: u.asn, Port: uint16(u.port), Passive: u.dials, Import: rules}
}

// announcement is a path that an upstream originates.
type announcement struct {
	prefix  string
	nextHop string
	path    []uint32 // AS path after the upstream's own ASN
	med     uint32
	// communities and large are attached.
	communities []uint32
	large       []LargeCommunity
}

func (u *upstream) announce(list ...announcement) {
	u.t.Helper()
	for _, a := range list {
		if _, err := u.bgp.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{u.path(a)}}); err != nil {
			u.t.Fatal(err)
		}
	}
}

func (u *upstream) withdraw(prefixes ...string) {
	u.t.Helper()
	for _, p := range prefixes {
		path := u.path(announcement{prefix: p})
		path.Withdrawal = true
		if err := u.bgp.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{path}}); err != nil {
			u.t.Fatal(err)
		}
	}
}

func (u *upstream) path(a announcement) *apiutil.Path {
	u.t.Helper()
	p := prefix(a.prefix)
	nextHop := a.nextHop
	if nextHop == "" {
		nextHop = map[bool]string{true: "192.0.2.1", false: "2001:db8:ff::1"}[p.Addr().Is4()]
	}
	nlri, err := packet.NewIPAddrPrefix(p)
	if err != nil {
		u.t.Fatal(err)
	}
	path := &apiutil.Path{Family: packetFamily(familyOf(p.Addr())), Nlri: nlri, Age: time.Now().Unix()}
	path.Attrs = []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(0)}
	if p.Addr().Is4() {
		hop, err := packet.NewPathAttributeNextHop(addr(nextHop))
		if err != nil {
			u.t.Fatal(err)
		}
		path.Attrs = append(path.Attrs, hop)
	} else {
		reach, err := packet.NewPathAttributeMpReachNLRI(path.Family, []packet.PathNLRI{{NLRI: nlri}}, addr(nextHop))
		if err != nil {
			u.t.Fatal(err)
		}
		path.Attrs = append(path.Attrs, reach)
	}
	if len(a.path) > 0 {
		segment := packet.NewAs4PathParam(packet.BGP_ASPATH_ATTR_TYPE_SEQ, a.path)
		path.Attrs = append(path.Attrs, packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{segment}))
	}
	if a.med > 0 {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeMultiExitDisc(a.med))
	}
	path.Attrs = append(path.Attrs, optionalAttributes(Attributes{Communities: a.communities, LargeCommunities: a.large})...)
	return path
}

// learned is one path that the gateway announced to an upstream.
type learned struct {
	nextHop     string
	communities []uint32
	large       string
	path        []uint32
	med, pref   string // "" without one
	stale       bool
}

// rib is what the upstream has from the gateway.
func (u *upstream) rib() map[string]learned {
	u.t.Helper()
	out := map[string]learned{}
	for f := range families {
		err := u.bgp.ListPath(apiutil.ListPathRequest{
			TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: gatewayAddress.String(), Family: packetFamily(f),
		}, func(nlri packet.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				l := learned{stale: p.Stale}
				for _, a := range p.Attrs {
					switch a := a.(type) {
					case *packet.PathAttributeNextHop:
						l.nextHop = a.Value.String()
					case *packet.PathAttributeMpReachNLRI:
						l.nextHop = a.Nexthop.String()
					case *packet.PathAttributeCommunities:
						l.communities = a.Value
					case *packet.PathAttributeLargeCommunities:
						for _, c := range a.Values {
							l.large += c.String() + " "
						}
					case *packet.PathAttributeMultiExitDisc:
						l.med = fmt.Sprint(a.Value)
					case *packet.PathAttributeLocalPref:
						l.pref = fmt.Sprint(a.Value)
					case *packet.PathAttributeAsPath:
						for _, s := range a.Value {
							l.path = append(l.path, s.GetAS()...)
						}
					}
				}
				out[nlri.String()] = l
			}
		})
		if err != nil {
			u.t.Fatal(err)
		}
	}
	return out
}

// has waits until the upstream has one prefix with just these attributes.
func (u *upstream) has(prefix string, want learned) {
	u.t.Helper()
	lab.Eventually(u.t, deadline, fmt.Sprintf("%s in %s", prefix, u.addr), func() error {
		if have, ok := u.rib()[prefix]; !ok || !reflect.DeepEqual(have, want) {
			return fmt.Errorf("have %+v (%t), want %+v", have, ok, want)
		}
		return nil
	})
}

// wants waits until the upstream has exactly these prefixes from the gateway.
func (u *upstream) wants(prefixes ...string) {
	u.t.Helper()
	slices.Sort(prefixes)
	lab.Eventually(u.t, deadline, fmt.Sprintf("prefixes of the gateway in %s", u.addr), func() error {
		have := slices.Sorted(maps.Keys(u.rib()))
		if !slices.Equal(have, prefixes) {
			return fmt.Errorf("have %q, want %q", have, prefixes)
		}
		return nil
	})
}
