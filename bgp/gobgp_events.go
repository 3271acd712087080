package bgp

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"

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
					if k, ok := keyOf(path); ok {
						peer := path.PeerAddress.Unmap()
						ev.path(peer, k, s.candidate(path, peer), path.Withdrawal)
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
		out.expired = e.Peer.State.DisconnectReason == api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED
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
	ours := capNames(e.Peer.State.LocalCap)
	for _, name := range capNames(e.Peer.State.RemoteCap) {
		if slices.Contains(ours, name) {
			out.capabilities = append(out.capabilities, name)
		}
	}
	slices.Sort(out.capabilities)
	out.capabilities = slices.Compact(out.capabilities)
	out.routerID = e.Peer.State.RouterID
	return out
}

// Names of capabilities that decide something here.
const (
	capExtendedNextHop = "extended-next-hop"
	capAddPath         = "add-path"
	capLongLived       = "long-lived-graceful-restart"
)

// capNames names capabilities of the IANA registry "Capability Codes"; others
// are left out.
func capNames(caps []packet.ParameterCapabilityInterface) []string {
	var out []string
	for _, c := range caps {
		switch c.Code() {
		case packet.BGP_CAP_MULTIPROTOCOL:
			for f := range families {
				if mp, ok := c.(*packet.CapMultiProtocol); ok && mp.CapValue == packetFamily(f) {
					out = append(out, strings.ToLower(f.String())+"-unicast")
				}
			}
		case packet.BGP_CAP_ROUTE_REFRESH:
			out = append(out, "route-refresh")
		case packet.BGP_CAP_EXTENDED_NEXTHOP:
			out = append(out, capExtendedNextHop)
		case packet.BGP_CAP_EXTENDED_MESSAGE:
			out = append(out, "extended-message")
		case packet.BGP_CAP_GRACEFUL_RESTART:
			out = append(out, "graceful-restart")
		case packet.BGP_CAP_FOUR_OCTET_AS_NUMBER:
			out = append(out, "4-octet-as")
		case packet.BGP_CAP_ADD_PATH:
			out = append(out, capAddPath)
		case packet.BGP_CAP_LONG_LIVED_GRACEFUL_RESTART:
			out = append(out, capLongLived)
		}
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

func keyOf(path *apiutil.Path) (pathKey, bool) {
	nlri, ok := path.Nlri.(*packet.IPAddrPrefix)
	if !ok || !nlri.Prefix.IsValid() {
		return pathKey{}, false
	}
	return pathKey{nlri.Prefix.Masked(), path.RemoteID}, true
}

// candidate extracts what the selection needs from a path's attributes.
func (s *server) candidate(path *apiutil.Path, peer netip.Addr) candidate {
	c := candidate{localPref: defaultLocalPref, origin: packet.BGP_ORIGIN_ATTR_TYPE_INCOMPLETE}
	var attrs pathAttributes
	for _, a := range path.Attrs {
		switch a := a.(type) {
		case *packet.PathAttributeNextHop:
			c.nextHop = a.Value
		case *packet.PathAttributeMpReachNLRI:
			c.nextHop = a.Nexthop
			// BIRD has no global next hop to send between link-local addresses, and
			// GoBGP loses the link-local one that follows it: it is the sender.
			if c.nextHop.IsUnspecified() && peer.IsLinkLocalUnicast() {
				c.nextHop = peer
			}
		case *packet.PathAttributeOrigin:
			c.origin = a.Value
		case *packet.PathAttributeLocalPref:
			c.localPref = a.Value
		case *packet.PathAttributeMultiExitDisc:
			c.med = a.Value
		case *packet.PathAttributeAsPath:
			s.asPath(&c, &attrs, a)
		case *packet.PathAttributeCommunities:
			attrs.communities = packCommunities(a.Value)
		case *packet.PathAttributeLargeCommunities:
			large := make([]LargeCommunity, 0, len(a.Values))
			for _, l := range a.Values {
				large = append(large, LargeCommunity{l.ASN, l.LocalData1, l.LocalData2})
			}
			attrs.large = packLarge(large)
		}
	}
	// A link-local next hop is on the link that the session runs over.
	if c.nextHop.Is6() && c.nextHop.IsLinkLocalUnicast() {
		c.nextHop = c.nextHop.WithZone(peer.Zone())
	}
	c.attrs = unique.Make(attrs)
	return c
}

func (s *server) asPath(c *candidate, attrs *pathAttributes, a *packet.PathAttributeAsPath) {
	var text []byte
	for i, segment := range a.Value {
		asns := segment.GetAS()
		// ASLen counts a set as one and confederation segments as none.
		c.asPathLen += segment.ASLen()
		c.loop = c.loop || slices.Contains(asns, s.asn)
		kind := segment.GetType()
		if i == 0 && kind == packet.BGP_ASPATH_ATTR_TYPE_SEQ && len(asns) > 0 {
			c.neighborAS = asns[0]
		}
		text = appendSegment(text, asns, kind == packet.BGP_ASPATH_ATTR_TYPE_SET || kind == packet.BGP_ASPATH_ATTR_TYPE_CONFED_SET)
	}
	attrs.asPath = string(text)
}

// appendSegment writes a sequence as numbers with blanks between them, a set in
// braces.
func appendSegment(text []byte, asns []uint32, set bool) []byte {
	for i, asn := range asns {
		switch {
		case set && i > 0:
			text = append(text, ',')
		case len(text) > 0:
			text = append(text, ' ')
		}
		if set && i == 0 {
			text = append(text, '{')
		}
		text = strconv.AppendUint(text, uint64(asn), 10)
	}
	if set && len(asns) > 0 {
		text = append(text, '}')
	}
	return text
}
