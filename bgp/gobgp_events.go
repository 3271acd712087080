package bgp

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"
)

// callbacks translates GoBGP's events. They come one at a time from a goroutine
// of the library, out of a queue without a bound: nothing here may block for
// long, and nothing may panic.
func (s *server) callbacks(ev events) gobgp.WatchEventMessageCallbacks {
	return gobgp.WatchEventMessageCallbacks{
		OnPathUpdate: func(paths []*apiutil.Path, _ time.Time) {
			ev.done(guard("paths", func() {
				for _, path := range paths {
					if p, ok := pathPrefix(path); ok {
						ev.path(path.PeerAddress.Unmap(), p, s.candidate(path), path.Withdrawal)
					}
				}
			}))
		},
		OnPathEor: func(path *apiutil.Path, _ time.Time) {
			ev.done(guard("end of rib", func() {
				switch path.Family {
				case packet.RF_IPv4_UC:
					ev.endOfRIB(path.PeerAddress.Unmap(), ipv4)
				case packet.RF_IPv6_UC:
					ev.endOfRIB(path.PeerAddress.Unmap(), ipv6)
				}
			}))
		},
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
			if e.Type == apiutil.PEER_EVENT_STATE {
				ev.done(guard("session state", func() { ev.session(translateSession(e, at)) }))
			}
		},
	}
}

func translateSession(e *apiutil.WatchEventMessage_PeerEvent, at time.Time) sessionEvent {
	out := sessionEvent{peer: e.Peer.State.NeighborAddress.Unmap(), at: at}
	out.state = strings.ToLower(strings.TrimPrefix(e.Peer.State.SessionState.String(), "BGP_FSM_"))
	if out.state != established {
		out.cause, out.kept = translateReason(e.Peer.State.DisconnectReason)
		return out
	}
	// The families both sides announced; a peer without the capability speaks
	// IPv4 (RFC 4760 8).
	local, remote := capFamilies(e.Peer.State.LocalCap), capFamilies(e.Peer.State.RemoteCap)
	if remote == ([families]bool{}) {
		remote[ipv4] = true
	}
	for f := range families {
		out.negotiated[f] = local[f] && remote[f]
	}
	return out
}

func capFamilies(caps []packet.ParameterCapabilityInterface) [families]bool {
	var out [families]bool
	for _, c := range caps {
		if mp, ok := c.(*packet.CapMultiProtocol); ok {
			for f := range families {
				out[f] = out[f] || mp.CapValue == packetFamily(f)
			}
		}
	}
	return out
}

// translateReason says why a session went down where no NOTIFICATION does, and
// whether its paths are kept.
func translateReason(r api.PeerState_DisconnectReason) (cause string, kept bool) {
	switch r {
	case api.PeerState_DISCONNECT_REASON_READ_FAILED, api.PeerState_DISCONNECT_REASON_WRITE_FAILED:
		return "connection closed by the peer or lost", false
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return "hold timer expired", false
	case api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		return "connection closed by the peer or lost; its routes are kept for its restart time", true
	case api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED:
		return "the peer did not come back within its restart time", false
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		return refusedHint, false
	}
	return "", false
}

func pathPrefix(path *apiutil.Path) (netip.Prefix, bool) {
	nlri, ok := path.Nlri.(*packet.IPAddrPrefix)
	if !ok || !nlri.Prefix.IsValid() {
		return netip.Prefix{}, false
	}
	return nlri.Prefix.Masked(), true
}

// candidate extracts what the selection needs from a path's attributes.
func (s *server) candidate(path *apiutil.Path) candidate {
	c := candidate{localPref: defaultLocalPref, origin: packet.BGP_ORIGIN_ATTR_TYPE_INCOMPLETE}
	for _, a := range path.Attrs {
		switch a := a.(type) {
		case *packet.PathAttributeNextHop:
			c.nextHop = a.Value
		case *packet.PathAttributeMpReachNLRI:
			c.nextHop = a.Nexthop
		case *packet.PathAttributeOrigin:
			c.origin = a.Value
		case *packet.PathAttributeLocalPref:
			c.localPref = a.Value
		case *packet.PathAttributeMultiExitDisc:
			c.med = a.Value
		case *packet.PathAttributeAsPath:
			for i, segment := range a.Value {
				asns := segment.GetAS()
				// ASLen counts a set as one and confederation segments as none.
				c.asPathLen += segment.ASLen()
				c.loop = c.loop || slices.Contains(asns, s.asn)
				if i == 0 && segment.GetType() == packet.BGP_ASPATH_ATTR_TYPE_SEQ && len(asns) > 0 {
					c.neighborAS = asns[0]
				}
			}
		}
	}
	return c
}
