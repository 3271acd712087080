package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// setPolicies replaces both policies at once: only local paths are accepted into
// the table, and only local paths are exported, as the rules say. What the rules
// refuse ends the walk through the statements; all else only changes attributes,
// until the last statement accepts.
func (s *server) setPolicies(rules exportRules) error {
	local := &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}
	accept := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	b := policyBuilder{req: &api.SetPoliciesRequest{}}
	for _, r := range rules.peers {
		b.nextHops(r)
	}
	b.prepends(rules)
	for _, r := range rules.peers {
		b.override(r)
	}
	b.statements = append(b.statements, &api.Statement{Name: "export-local", Conditions: local, Actions: accept})
	b.req.Policies = []*api.Policy{
		{Name: importPolicy, Statements: []*api.Statement{{Name: "import-local", Conditions: local, Actions: accept}}},
		{Name: exportPolicy, Statements: b.statements},
	}
	if err := s.bgp.SetPolicies(context.Background(), b.req); err != nil {
		return fmt.Errorf("set policies: %w", err)
	}
	return nil
}

type policyBuilder struct {
	req        *api.SetPoliciesRequest
	statements []*api.Statement
}

// neighbors defines a set of peers and returns the condition for it.
func (b *policyBuilder) neighbors(name string, peers ...netip.Prefix) *api.MatchSet {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name}
	for _, p := range peers {
		set.List = append(set.List, p.String())
	}
	b.req.DefinedSets = append(b.req.DefinedSets, set)
	return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}
}

func (b *policyBuilder) add(name string, c *api.Conditions, a *api.Actions) {
	c.RouteType = api.Conditions_ROUTE_TYPE_LOCAL
	b.statements = append(b.statements, &api.Statement{Name: name, Conditions: c, Actions: a})
}

// nextHops refuses the families for which there is no next hop in the session
// with a peer, and sets those that are not the session's own address.
func (b *policyBuilder) nextHops(r exportRule) {
	for f := range families {
		actions := &api.Actions{}
		switch r.nextHop[f].kind {
		case self:
			continue
		case refuse:
			actions.RouteAction = api.RouteAction_ROUTE_ACTION_REJECT
		case explicit:
			actions.Nexthop = &api.NexthopAction{Address: r.nextHop[f].addr.String()}
		}
		name := fmt.Sprintf("%s-%s", r.peer, f)
		b.add(name, &api.Conditions{NeighborSet: b.neighbors(name, r.peer), AfiSafiIn: []*api.Family{apiFamily(f)}}, actions)
	}
}

// prepends lengthens the AS path for the external peers that have no override.
// A set of prefixes has one family.
func (b *policyBuilder) prepends(rules exportRules) {
	peers := map[uint32][]netip.Prefix{}
	for _, r := range rules.peers {
		if r.asn != 0 && r.override.Prepend == nil {
			peers[r.asn] = append(peers[r.asn], r.peer)
		}
	}
	for _, p := range rules.prepends {
		prefixes := fmt.Sprintf("prepend-%d-%s", p.times, p.family)
		set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: prefixes}
		for _, prefix := range p.prefixes {
			bits := uint32(prefix.Bits())
			set.Prefixes = append(set.Prefixes, &api.Prefix{IpPrefix: prefix.String(), MaskLengthMin: bits, MaskLengthMax: bits})
		}
		b.req.DefinedSets = append(b.req.DefinedSets, set)
		for asn, list := range peers {
			name := fmt.Sprintf("%s-as%d", prefixes, asn)
			b.add(name, &api.Conditions{
				NeighborSet: b.neighbors(name, list...),
				PrefixSet:   &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: prefixes},
			}, &api.Actions{AsPrepend: &api.AsPrependAction{Asn: asn, Repeat: uint32(p.times)}})
		}
	}
}

// override replaces attributes in everything that goes to one peer.
func (b *policyBuilder) override(r exportRule) {
	o, a := r.override, &api.Actions{}
	if o.Communities != nil {
		a.Community = &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: texts(o.Communities, FormatCommunity)}
	}
	if o.LargeCommunities != nil {
		a.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: texts(o.LargeCommunities, LargeCommunity.String)}
	}
	if o.MED != nil {
		a.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(*o.MED)}
	}
	if o.LocalPref != nil {
		a.LocalPref = &api.LocalPrefAction{Value: *o.LocalPref}
	}
	if n := o.prepend(); n > 0 && r.asn != 0 {
		a.AsPrepend = &api.AsPrependAction{Asn: r.asn, Repeat: uint32(n)}
	}
	if o.empty() {
		return
	}
	name := fmt.Sprintf("override-%s", r.peer)
	b.add(name, &api.Conditions{NeighborSet: b.neighbors(name, r.peer)}, a)
}

func texts[T any](list []T, text func(T) string) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, text(v))
	}
	return out
}

// resend sends a peer what the policies let through now, and withdraws the rest.
func (s *server) resend(peer netip.Addr) error {
	return s.bgp.ResetPeer(context.Background(), &api.ResetPeerRequest{
		Address: peer.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
	})
}

// setLocal announces a prefix to all peers, or changes its attributes.
func (s *server) setLocal(a Advertisement) error {
	path, err := localPath(a)
	if err != nil {
		return err
	}
	_, err = s.bgp.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{path}})
	return err
}

func (s *server) removeLocal(p netip.Prefix) error {
	path, err := localPath(Advertisement{Prefix: p})
	if err != nil {
		return err
	}
	path.Withdrawal = true
	return s.bgp.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{path}})
}

// localPath has the unspecified address as next hop, for which GoBGP fills in
// each session's own address.
func localPath(a Advertisement) (*apiutil.Path, error) {
	nlri, err := packet.NewIPAddrPrefix(a.Prefix)
	if err != nil {
		return nil, err
	}
	path := &apiutil.Path{Family: packetFamily(familyOf(a.Prefix.Addr())), Nlri: nlri, Age: time.Now().Unix()}
	path.Attrs = []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(packet.BGP_ORIGIN_ATTR_TYPE_IGP)}
	if a.Prefix.Addr().Is4() {
		nextHop, err := packet.NewPathAttributeNextHop(netip.IPv4Unspecified())
		if err != nil {
			return nil, err
		}
		path.Attrs = append(path.Attrs, nextHop)
	} else {
		reach, err := packet.NewPathAttributeMpReachNLRI(path.Family, []packet.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
		if err != nil {
			return nil, err
		}
		path.Attrs = append(path.Attrs, reach)
	}
	path.Attrs = append(path.Attrs, optionalAttributes(a.Attributes)...)
	return path, nil
}

func optionalAttributes(a Attributes) []packet.PathAttributeInterface {
	var out []packet.PathAttributeInterface
	if a.MED != nil {
		out = append(out, packet.NewPathAttributeMultiExitDisc(*a.MED))
	}
	if a.LocalPref != nil {
		out = append(out, packet.NewPathAttributeLocalPref(*a.LocalPref))
	}
	if len(a.Communities) > 0 {
		out = append(out, packet.NewPathAttributeCommunities(a.Communities))
	}
	if len(a.LargeCommunities) > 0 {
		large := make([]*packet.LargeCommunity, 0, len(a.LargeCommunities))
		for _, c := range a.LargeCommunities {
			large = append(large, packet.NewLargeCommunity(c.Global, c.Local1, c.Local2))
		}
		out = append(out, packet.NewPathAttributeLargeCommunities(large))
	}
	return out
}
