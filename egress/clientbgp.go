package egress

import (
	"net/netip"
	"slices"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
)

// ClientsNetwork is the name of the clients' side where names of networks are
// expected: in status, metrics and events. No network has it.
const ClientsNetwork = "clients"

// degradedMED is added to the metric of a prefix while only some of its networks
// are up: the clients' routers then prefer a gateway where all are, and have this
// one when there is none.
const degradedMED = 100

// clientBGP is the configuration of the speaker towards the clients' routers.
func (r *resolver) clientBGP(d *Desired) (bgp.Config, bool) {
	c := r.spec.Clients.BGP
	if c == nil {
		return bgp.Config{}, false
	}
	restarting := false
	for _, a := range r.st.Adopted {
		restarting = restarting || a.Forwarding
	}
	n := Network{Name: ClientsNetwork, BGP: &c.BGP}
	return bgp.Config{Network: ClientsNetwork, ASN: c.ASN, RouterID: c.RouterID, ListenPort: listenPort(&c.BGP),
		Peers: peersOf(&n, r.st.Broken), GracefulRestart: c.GracefulRestart, Restarting: restarting,
		Advertise: r.spec.reachable(func(network string) bool { return d.network(network).serves() })}, true
}

// serves says that clients may be led to the network. A drain leaves them where
// they are until its end: to lead them elsewhere would break their connections.
func (d *NetworkDecision) serves() bool {
	return d != nil && d.Up && d.Drain.Stage != drain.Withdrawn
}

// reachable are the prefixes that clients reach by this gateway now: each while
// one of its networks is up, with a worse metric while not all are.
func (s *Spec) reachable(up func(network string) bool) []bgp.Advertisement {
	c := s.Clients.BGP
	reach := slices.Clone(c.Reach)
	if c.Policies {
		reach = append(reach, s.destinations()...)
	}
	var out []bgp.Advertisement
	done := map[netip.Prefix]bool{}
	for _, r := range reach {
		if done[r.Prefix] {
			continue
		}
		done[r.Prefix] = true
		works := 0
		for _, network := range r.Networks {
			if up(network) {
				works++
			}
		}
		if works == 0 {
			continue
		}
		a := bgp.Advertisement{Prefix: r.Prefix, Attributes: r.Attributes}
		if works < len(r.Networks) {
			med := uint32(degradedMED)
			if a.MED != nil {
				med = max(*a.MED, *a.MED+degradedMED) // not beyond the highest
			}
			a.MED = &med
		}
		out = append(out, a)
	}
	return out
}

// destinations are those of all rules that lead to networks, each with all the
// networks it leads to, in the order of the policies.
func (s *Spec) destinations() []ClientReach {
	var out []ClientReach
	at := map[netip.Prefix]int{}
	for _, policy := range s.Policies {
		for _, rule := range policy.Rules {
			if rule.Action != ActionNetwork {
				continue
			}
			i, known := at[rule.Destination]
			if !known {
				i = len(out)
				at[rule.Destination] = i
				out = append(out, ClientReach{Prefix: rule.Destination, Attributes: s.Clients.BGP.Attributes})
			}
			if !slices.Contains(out[i].Networks, rule.Network) {
				out[i].Networks = append(out[i].Networks, rule.Network)
			}
		}
	}
	return out
}

// advertisable is what a speaker may advertise after this round: a network whose
// data plane failed has nothing, and leads clients nowhere; when the packet
// filter failed, which then still is what it was, nothing new is advertised.
func (r *Router) advertisable(c bgp.Config, want *Desired, rep *report) []bgp.Advertisement {
	out := c.Advertise
	switch {
	case rep.failed[c.Network] != nil:
		return nil
	case c.Network == ClientsNetwork && len(rep.failed) > 0:
		out = r.spec.reachable(func(network string) bool {
			dec := want.network(network)
			return dec.serves() && rep.failed[network] == nil
		})
	}
	if rep.filter != nil {
		out = keepAdvertised(out, r.advertised[c.Network])
	}
	return out
}

// ClientBGPStatus is the speaker towards the clients' routers.
type ClientBGPStatus struct {
	Peers []PeerStatus `json:"peers"`
	// Advertised are the prefixes that the speaker was told to advertise, Withheld
	// those that lead nowhere now.
	Advertised []netip.Prefix `json:"advertised"`
	Withheld   []netip.Prefix `json:"withheld,omitempty"`
	// BFD are the sessions that BGP sessions follow.
	BFD   []ProbeStatus `json:"bfd,omitempty"`
	Error string        `json:"error,omitempty"`
}

func (r *Router) clientBGPStatus(speaker bgp.State, sessions []ProbeStatus) *ClientBGPStatus {
	if r.spec.Clients.BGP == nil {
		return nil
	}
	out := &ClientBGPStatus{BFD: sessions, Peers: []PeerStatus{}, Advertised: []netip.Prefix{}}
	for _, p := range speaker.Peers {
		status := peerStatus(p)
		status.ImportMissing = false // as it should be
		out.Peers = append(out.Peers, status)
	}
	for _, a := range r.spec.reachable(func(string) bool { return true }) {
		if r.advertised[ClientsNetwork][a.Prefix] {
			out.Advertised = append(out.Advertised, a.Prefix)
		} else {
			out.Withheld = append(out.Withheld, a.Prefix)
		}
	}
	if speaker.Err != nil {
		out.Error = speaker.Err.Error()
	}
	return out
}
