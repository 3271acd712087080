package bgp

import (
	"context"
	"fmt"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

// addPeer adds a neighbour; restarting sets the R and F bits in its OPEN.
func (s *server) addPeer(p Peer, secret string, restarting bool) error {
	return s.bgp.AddPeer(context.Background(), &api.AddPeerRequest{Peer: s.neighbor(p, secret, restarting, 0)})
}

// deletePeer ends the session with a Cease. GoBGP takes the password of a
// neighbour off its listening socket only where that neighbour changes, and
// without it the peer could not come back unsigned.
func (s *server) deletePeer(p Peer, secret string) error {
	if secret != "" {
		if err := s.updatePeer(p, "", 0); err != nil {
			return err
		}
	}
	return s.bgp.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: p.Address.String()})
}

// closeFull closes the session of a peer that sent more than MaxPrefixes with
// the right Cease, and keeps it down until reopen. GoBGP's own limit is not used
// beyond this: it counts the whole Adj-RIB-In at every UPDATE, and a change of it
// makes GoBGP forget what was negotiated.
func (s *server) closeFull(p Peer, secret string) error {
	return s.updatePeer(p, secret, p.MaxPrefixes)
}

// reopen lets a peer come back after closeFull or disable. Removing it and
// adding it anew would leave a goroutine of GoBGP behind each time.
func (s *server) reopen(p Peer, secret string) error {
	if err := s.updatePeer(p, secret, 0); err != nil {
		return err
	}
	return s.setAdmin(p, api.PeerState_ADMIN_STATE_UP, func(ctx context.Context) error {
		return s.bgp.EnablePeer(ctx, &api.EnablePeerRequest{Address: p.Address.String()})
	})
}

// disable ends the session with the peer's ShutdownMessage (RFC 9003), or the
// reason for which it is Down, and keeps it down until reopen. GoBGP has no way
// to send a Cease of subcode 10 (BFD Down, RFC 9384).
func (s *server) disable(p Peer) error {
	message := p.ShutdownMessage
	if !p.Shutdown {
		message = p.Down
	}
	return s.setAdmin(p, api.PeerState_ADMIN_STATE_DOWN, func(ctx context.Context) error {
		return s.bgp.DisablePeer(ctx, &api.DisablePeerRequest{Address: p.Address.String(), Communication: message})
	})
}

// How often, and how long, setAdmin looks whether it was heard.
const (
	adminPoll = 5 * time.Millisecond
	adminWait = 5 * time.Second
)

// setAdmin asks for a state until the peer has it: GoBGP drops a request, with
// no error, while the one before is not carried out.
func (s *server) setAdmin(p Peer, want api.PeerState_AdminState, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminWait)
	defer cancel()
	poll := time.NewTicker(adminPoll)
	defer poll.Stop()
	for {
		have := api.PeerState_ADMIN_STATE_UNSPECIFIED
		err := s.bgp.ListPeer(ctx, &api.ListPeerRequest{Address: p.Address.String()}, func(n *api.Peer) { have = n.State.AdminState })
		if err != nil || have == want {
			return err
		}
		if err := ask(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("peer is %s, not %s: %w", have, want, ctx.Err())
		case <-poll.C:
		}
	}
}

func (s *server) updatePeer(p Peer, secret string, limit uint32) error {
	_, err := s.bgp.UpdatePeer(context.Background(), &api.UpdatePeerRequest{Peer: s.neighbor(p, secret, false, limit)})
	return err
}

func (s *server) neighbor(p Peer, secret string, restarting bool, limit uint32) *api.Peer {
	n := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(), PeerAsn: p.ASN, LocalAsn: p.LocalASN, AuthPassword: secret,
			// Paths with our own ASN in them reach us and are refused in rib.accept.
			// GoBGP's refusal is silent: a looped path that replaces a good one would
			// leave the good one in force.
			AllowOwnAsn: 255,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime:          uint64(p.HoldTime / time.Second),
			KeepaliveInterval: uint64(p.KeepaliveTime / time.Second),
			ConnectRetry:      uint64(p.ConnectRetry / time.Second),
		}},
		Transport: &api.Transport{
			RemotePort: uint32(p.Port), PassiveMode: p.Passive, BindInterface: s.device,
		},
		EbgpMultihop: &api.EbgpMultihop{Enabled: p.Multihop > 0, MultihopTtl: uint32(p.Multihop)},
	}
	if p.TTLSecurity > 0 {
		n.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(p.TTLSecurity)}
	}
	if p.LocalAddress.IsValid() {
		n.Transport.LocalAddress = p.LocalAddress.String()
	}
	if s.restart != nil {
		n.GracefulRestart = &api.GracefulRestart{
			Enabled: true, RestartTime: uint32(s.restart.RestartTime / time.Second),
			DeferralTime: deferralTime, LocalRestarting: restarting, LonglivedEnabled: s.restart.LongLived > 0,
		}
	}
	for f := range families {
		if !p.enabled(f) {
			continue
		}
		n.AfiSafis = append(n.AfiSafis, &api.AfiSafi{
			Config:                   &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true},
			MpGracefulRestart:        &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: s.restart != nil}},
			PrefixLimits:             &api.PrefixLimit{Family: apiFamily(f), MaxPrefixes: limit},
			LongLivedGracefulRestart: s.longLived(),
			AddPaths:                 &api.AddPaths{Config: &api.AddPathsConfig{Receive: p.AddPath}},
		})
	}
	return n
}

func (s *server) longLived() *api.LongLivedGracefulRestart {
	if s.restart == nil || s.restart.LongLived == 0 {
		return nil
	}
	return &api.LongLivedGracefulRestart{Config: &api.LongLivedGracefulRestartConfig{
		Enabled: true, RestartTime: uint32(s.restart.LongLived / time.Second),
	}}
}

// addRange takes sessions from all addresses of a range, each as a neighbour
// that GoBGP makes when it is dialled and forgets when its session ends.
func (s *server) addRange(p Peer, secret string) error {
	n := s.neighbor(p, secret, false, 0)
	group := &api.PeerGroup{
		Conf: &api.PeerGroupConf{
			PeerGroupName: p.Range.String(), PeerAsn: p.ASN, LocalAsn: p.LocalASN, AuthPassword: secret, AllowOwnAsn: n.Conf.AllowOwnAsn,
		},
		Timers: n.Timers, Transport: n.Transport, EbgpMultihop: n.EbgpMultihop, TtlSecurity: n.TtlSecurity,
		GracefulRestart: n.GracefulRestart, AfiSafis: n.AfiSafis,
	}
	if err := s.bgp.AddPeerGroup(context.Background(), &api.AddPeerGroupRequest{PeerGroup: group}); err != nil {
		return err
	}
	return s.bgp.AddDynamicNeighbor(context.Background(), &api.AddDynamicNeighborRequest{
		DynamicNeighbor: &api.DynamicNeighbor{Prefix: p.Range.String(), PeerGroup: p.Range.String()},
	})
}

// stopRange takes no more sessions from a range.
func (s *server) stopRange(p Peer) error {
	return s.bgp.DeleteDynamicNeighbor(context.Background(), &api.DeleteDynamicNeighborRequest{
		Prefix: p.Range.String(), PeerGroup: p.Range.String(),
	})
}

// dropDynamic ends one session that came from a range. It may be gone already.
func (s *server) dropDynamic(p Peer) error {
	return s.bgp.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: p.Address.String()})
}

// removeRange forgets a range without sessions.
func (s *server) removeRange(p Peer) error {
	return s.bgp.DeletePeerGroup(context.Background(), &api.DeletePeerGroupRequest{Name: p.Range.String()})
}
