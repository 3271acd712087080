package egress

import (
	"net/netip"

	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// hop is a gateway of a network as it is now.
type hop struct {
	vrf.NextHop
	weight     uint16
	preference uint16
	// known means that it is on a connected prefix of the network; usable that it
	// may carry traffic.
	known, usable bool
}

// hop judges a gateway once per round. It is usable when its device has
// carrier and all probes of it are up. A probe without a verdict changes
// nothing: the gateway goes on if the kernel uses it, and else waits.
func (t *table) hop(h NextHop) hop {
	out := hop{weight: max(h.Weight, 1), preference: h.Preference}
	d, on := t.gateway(h.Address)
	out.NextHop = vrf.NextHop{Gateway: h.Address.WithZone(""), Device: on.device, IPv6: h.Address.Is6()}
	out.known, out.usable = on.device != "", d.Usable
	return out
}

// gateway finds where a gateway is and decides whether it is usable.
func (t *table) gateway(a netip.Addr) (*NextHopDecision, onLink) {
	on, ok := t.resolve(a)
	a = addressOn(a, on.device)
	if d := t.seen[a]; d != nil {
		return d, on
	}
	d := &NextHopDecision{Address: a, Device: on.device, Live: on.live}
	t.seen[a] = d
	switch {
	case !ok:
		d.Reason = "on no connected prefix of the network, nor behind another route"
	case !on.live:
		d.Reason = "no carrier"
	default:
		d.Usable, d.Reason = t.healthy(a, on.device)
	}
	return d, on
}

// addressOn is how a gateway on a device is named: a link-local address means
// something only with its interface, as its zone.
func addressOn(a netip.Addr, device string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() && device != "" {
		return a.WithZone(device)
	}
	return a
}

func (h hop) address() netip.Addr { return addressOn(h.Gateway, h.Device) }

// healthy asks the probes of a gateway.
func (t *table) healthy(a netip.Addr, device string) (bool, string) {
	unknown := ""
	for _, name := range t.n.hopProbes(a) {
		switch t.r.st.Verdicts[name] {
		case probes.Down:
			return false, "probe " + name + " is down"
		case probes.Unknown:
			unknown = name
		}
	}
	switch {
	case unknown == "":
		return true, ""
	case t.r.st.InUse[hopKey{a.WithZone(""), device}]:
		return true, "probe " + unknown + " has no verdict yet; the kernel was using it"
	}
	return false, "probe " + unknown + " has no verdict yet"
}

// hopKey names a gateway on a device.
type hopKey struct {
	gateway netip.Addr
	device  string
}

// nextHopProbeName is the name of the probe made from a template for a gateway.
func nextHopProbeName(template probes.Config, a netip.Addr) string {
	return hopProbeName(template.Name, a)
}

// hopProbeName is the same by the template's name; without an address it is what
// all these names begin with.
func hopProbeName(template string, a netip.Addr) string {
	if !a.IsValid() {
		return template + "@"
	}
	return template + "@" + a.String()
}

// nextHopProbes are the probes of all gateways seen, made from the network's
// templates.
func (t *table) nextHopProbes() []probes.Config {
	var out []probes.Config
	for _, d := range t.hops() {
		if d.Device == "" {
			continue
		}
		for _, p := range t.n.NextHopProbes {
			p.Name = nextHopProbeName(p, d.Address)
			if p.Type == probes.ARPND {
				p.Device = d.Device // neighbours are asked on the link itself
			}
			p.Targets = []probes.Target{{Address: d.Address}}
			out = append(out, p)
		}
	}
	return out
}

// knownHops are those of the hops that are on a connected prefix.
func knownHops(hops []hop) []hop {
	out := make([]hop, 0, len(hops))
	for _, h := range hops {
		if h.known {
			out = append(out, h)
		}
	}
	return out
}

// candidates are the usable hops of the best preference that has one, in their
// order, at most bound of them (0 is no bound).
func candidates(ordered []hop, bound int) []hop {
	best, found := uint16(0), false
	for _, h := range ordered {
		if h.usable && (!found || h.preference > best) {
			best, found = h.preference, true
		}
	}
	var out []hop
	for _, h := range ordered {
		if h.usable && h.preference == best && (bound == 0 || len(out) < bound) {
			out = append(out, h)
		}
	}
	return out
}

// keepSlots decides who is in a group: those that are in it now stay, and the
// next of the order stand in for those that are lost. A group that lost
// nobody, or everybody, is not patched: the second takes the ideal.
func keepSlots(current, ordered []hop, bound int) []hop {
	ideal := candidates(ordered, bound)
	var stay []hop
	for _, c := range current {
		for _, h := range ordered {
			if h.NextHop == c.NextHop && h.usable {
				stay = append(stay, h)
			}
		}
	}
	if len(stay) == 0 {
		return ideal
	}
	if len(stay) == len(current) {
		return stay
	}
	return grow(stay, ideal, bound)
}

// grow adds to a group what the ideal has more.
func grow(members, ideal []hop, bound int) []hop {
	for _, h := range ideal {
		if (bound == 0 || len(members) < bound) && !contains(members, h) {
			members = append(members, h)
		}
	}
	return members
}

func contains(hops []hop, h hop) bool {
	for _, o := range hops {
		if o.NextHop == h.NextHop {
			return true
		}
	}
	return false
}

// sameHops compares two sets of hops without regard to order.
func sameHops(a, b []hop) bool {
	if len(a) != len(b) {
		return false
	}
	for _, h := range a {
		if !contains(b, h) {
			return false
		}
	}
	return true
}
