package egress

import (
	"context"
	"net/netip"
	"reflect"
	"slices"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes/bfd"
)

// PeerSessionName is the name of the BFD session with a BGP peer of a network.
func PeerSessionName(network string, peer netip.Addr) string {
	return hopProbeName(network+"/bgp", peer)
}

// NextHopSessionName is the name of the BFD session made from a template for a
// next hop.
func NextHopSessionName(template bfd.Config, a netip.Addr) string {
	return hopProbeName(template.Name, a)
}

// sharesSession says that the session with a peer is the one with a next hop:
// two systems have one on a link (RFC 5881 2).
func (n *Network) sharesSession(c bfd.Config) bool {
	return len(n.NextHopBFD) > 0 && !c.Multihop
}

// peerBFD are the sessions with a network's peers that are no next hops'.
func (n *Network) peerBFD() []bfd.Config {
	if n.BGP == nil {
		return nil
	}
	var out []bfd.Config
	for _, c := range n.BGP.BFD {
		if !n.sharesSession(c) {
			out = append(out, c)
		}
	}
	return out
}

// peersOnLink are the peers whose BFD session is that of a next hop, which
// therefore is there whatever routes there are.
func (t *table) peersOnLink() []netip.Addr {
	if t.n.BGP == nil {
		return nil
	}
	var out []netip.Addr
	for _, c := range t.n.BGP.BFD {
		if t.n.sharesSession(c) {
			out = append(out, c.Peer)
		}
	}
	return out
}

// brokenSessions are those that have been up and are down. One that has not come
// up yet, is held down on purpose at either end, or of which nothing is known
// says nothing about the path (RFC 5882 3.2 and 4.2).
func brokenSessions(states []bfd.State) map[string]string {
	out := map[string]string{}
	for _, st := range states {
		if !st.Stale && st.Ups > 0 && (st.Status == bfd.Down || st.Status == bfd.Init) && st.RemoteStatus != bfd.AdminDown {
			out[st.Name] = "BFD session down: " + st.Diag.String()
		}
	}
	return out
}

// peersOf are a network's peers; those whose BFD session is broken are Down.
func peersOf(n *Network, broken map[string]string) []bgp.Peer {
	peers, copied := n.BGP.Peers, false
	for _, c := range n.BGP.BFD {
		why := broken[c.Name]
		i := slices.IndexFunc(peers, func(p bgp.Peer) bool { return p.Address == c.Peer })
		if why == "" || i < 0 {
			continue
		}
		if !copied {
			peers, copied = slices.Clone(peers), true
		}
		peers[i].Down = why
	}
	return peers
}

// losePeers ends BGP sessions whose BFD session has just gone down, so that what
// they sent is gone before this round works out where traffic goes.
func (r *Router) losePeers(ctx context.Context) {
	if r.prev == nil {
		return
	}
	broken := brokenSessions(r.edges.BFD.State())
	configs, changed := slices.Clone(r.prev.BGP), false
	for i := range configs {
		c := &configs[i]
		for _, n := range r.spec.speaking() {
			if n.Name != c.Network || len(n.BGP.BFD) == 0 {
				continue
			}
			peers := peersOf(&n, broken)
			if newlyDown(c.Peers, peers) {
				c.Peers, changed = peers, true
			}
		}
		c.Advertise = keepAdvertised(c.Advertise, r.advertised[c.Network])
	}
	if !changed {
		return
	}
	if err := r.setSpeaker(ctx, configs); err != nil {
		r.log.Warn("bgp sessions could not be ended at once", "err", err)
	}
}

// speaking are the networks with a speaker, the clients' side among them.
func (s *Spec) speaking() []Network {
	var out []Network
	for _, n := range s.Networks {
		if n.BGP != nil {
			out = append(out, n)
		}
	}
	if s.Clients.BGP != nil {
		out = append(out, Network{Name: ClientsNetwork, BGP: &s.Clients.BGP.BGP})
	}
	return out
}

// newlyDown says whether a peer became Down, while nothing else is different: a
// new Spec is for the round.
func newlyDown(before, now []bgp.Peer) bool {
	if len(before) != len(now) {
		return false
	}
	down := false
	for i := range now {
		a, b := before[i], now[i]
		down = down || a.Down == "" && b.Down != ""
		a.Down, b.Down = "", ""
		if !reflect.DeepEqual(a, b) {
			return false
		}
	}
	return down
}
