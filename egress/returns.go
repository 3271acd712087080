package egress

import "github.com/egret-router/egret/vrf"

// metricReturn is the metric of the routes back to clients.
const metricReturn = 20

// returns adds the routes back to clients behind tunnels, and their next hops: one
// for each end of a tunnel and family, however many clients are behind it. Replies
// never depend on which network they come from, so these are no next hops of any.
func (r *resolver) returns() []vrf.Route {
	table := r.spec.Clients.ReturnTable
	if len(r.spec.Clients.Returns) == 0 || table == 0 {
		return nil
	}
	type far struct {
		device string
		tunnel vrf.Tunnel
		v6     bool
	}
	hops := map[far]vrf.NextHopID{}
	out := terminals(table)
	seen := make(map[vrf.Route]bool, len(r.spec.Clients.Returns))
	for _, b := range r.spec.Clients.Returns {
		route := vrf.Route{Table: table, Prefix: b.Prefix.Masked(), Metric: metricReturn, Type: vrf.Unicast}
		l, ok := r.st.Links[b.Device]
		if !ok || !l.Up || !l.Carrier || seen[route] {
			continue
		}
		seen[route] = true
		to := far{b.Device, b.Tunnel, b.Prefix.Addr().Is6()}
		if hops[to] == 0 {
			hops[to] = r.objects.hop(vrf.NextHop{Device: to.device, Tunnel: to.tunnel, IPv6: to.v6})
		}
		route.NextHop = hops[to]
		out = append(out, route)
	}
	return out
}
