package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"
)

// deferralTime is how long after its start GoBGP keeps back all updates to a
// peer while it waits for everybody's End-of-RIB (RFC 4724 4.1). Here only
// prefixes of our own are announced, whatever the peers say, so there is nothing
// to wait for: the shortest time GoBGP takes. With its default of 360 s, one
// dead peer would make all others drop our prefixes when their own timers end.
const deferralTime = 1

// Names in GoBGP's policy tables.
const (
	globalTable  = "global"
	importPolicy = "import"
	exportPolicy = "export"
)

// events are called by a server, one at a time and in order.
type events struct {
	// path is a path added to or, when withdrawn, removed from an Adj-RIB-In.
	path     func(peer netip.Addr, k pathKey, c candidate, withdrawn bool)
	endOfRIB func(peer netip.Addr, f family)
	session  func(e sessionEvent)
	// done follows every batch of the above.
	done func(err error)
}

// server is one GoBGP server.
type server struct {
	bgp *gobgp.BgpServer
	asn uint32
	// restart is nil without graceful restart.
	restart    *GracefulRestart
	device     string
	stopEvents context.CancelFunc
	stopped    atomic.Bool
}

// startServer starts GoBGP in the order that leaks nothing: policies before
// local paths and peers, which the caller adds next.
func startServer(cfg Config, out slog.Handler, note noteFunc, ev events) (*server, error) {
	s := &server{asn: cfg.ASN, restart: cfg.GracefulRestart, device: cfg.Device, stopEvents: func() {}}
	s.bgp = gobgp.NewBgpServer(gobgp.LoggerOption(slog.New(&tap{out: out, note: note, silent: &s.stopped}), nil))
	go s.bgp.Serve()
	if err := s.start(cfg, ev); err != nil {
		s.stop(false)
		return nil, err
	}
	return s, nil
}

func (s *server) start(cfg Config, ev events) error {
	ctx := context.Background()
	err := s.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: cfg.ASN, RouterId: cfg.RouterID.String(),
		ListenPort: int32(cfg.ListenPort), ListenAddresses: listenAddresses(), BindToDevice: cfg.Device,
		// The positions of IPv4 and IPv6 unicast in GoBGP's list. All of them, the
		// default, cost 10 MB.
		Families: []uint32{0, 1},
		// GoBGP keeps its selection options in package variables: the server started
		// last decides for all. They are the same for all, and irrelevant.
	}})
	if err != nil {
		return fmt.Errorf("start server on port %d of device %q: %w", cfg.ListenPort, cfg.Device, err)
	}
	if err := s.setPolicies(exportRules{}); err != nil {
		return err
	}
	for _, a := range []*api.PolicyAssignment{
		{Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT, Policies: []*api.Policy{{Name: importPolicy}}},
		{Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, Policies: []*api.Policy{{Name: exportPolicy}}},
	} {
		a.Name, a.DefaultAction = globalTable, api.RouteAction_ROUTE_ACTION_REJECT
		if err := s.bgp.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("assign policy %q: %w", a.Policies[0].Name, err)
		}
	}
	watch, cancel := context.WithCancel(ctx)
	s.stopEvents = cancel
	err = s.bgp.WatchEvent(watch, s.callbacks(ev),
		gobgp.WatchUpdate(false, "", ""), gobgp.WatchAdjInWithdraw(), gobgp.WatchEor(false), gobgp.WatchPeer())
	if err != nil {
		return fmt.Errorf("watch events: %w", err)
	}
	return nil
}

// stop ends the server. When graceful, peers that negotiated graceful restart
// see no NOTIFICATION but only their connections end, and keep our prefixes; all
// other sessions end with a Cease, upon which peers withdraw them at once.
func (s *server) stop(graceful bool) {
	s.stopEvents()
	_ = s.bgp.StopBgp(context.Background(), &api.StopBgpRequest{AllowGracefulRestart: graceful})
	// Stop ends what StopBgp leaves running, and complains that BGP is stopped.
	s.stopped.Store(true)
	s.bgp.Stop()
}

// listenAddresses leaves IPv6 out where the kernel lacks it.
func listenAddresses() []string {
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return []string{"0.0.0.0"}
	}
	_ = syscall.Close(fd)
	return []string{"0.0.0.0", "::"}
}

// adjIn lists what a peer has announced.
func (s *server) adjIn(peer netip.Addr, fs [families]bool) (map[pathKey]candidate, error) {
	out := map[pathKey]candidate{}
	for f := range families {
		if !fs[f] {
			continue
		}
		err := s.bgp.ListPath(apiutil.ListPathRequest{
			TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: peer.String(), Family: packetFamily(f),
		}, func(_ packet.NLRI, paths []*apiutil.Path) {
			for _, path := range paths {
				if k, ok := keyOf(path); ok {
					out[k] = s.candidate(path, peer)
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("list paths of peer %q: %w", peer, err)
		}
	}
	return out, nil
}

func apiFamily(f family) *api.Family {
	if f == ipv4 {
		return &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	}
	return &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
}

func packetFamily(f family) packet.Family {
	if f == ipv4 {
		return packet.RF_IPv4_UC
	}
	return packet.RF_IPv6_UC
}
