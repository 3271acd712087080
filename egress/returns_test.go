package egress

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

const returnTable vrf.TableID = 7000

// tunnelledClients are n clients behind ten nodes with tunnels of both families, and
// one on this node.
func tunnelledClients(n int) *Spec {
	spec := twoNetworks()
	spec.Clients.Interfaces = []string{"eth0", "tun", "loop0"}
	spec.Clients.ReturnTable = returnTable
	for i := range n {
		ends := []string{fmt.Sprintf("192.0.2.%d", 1+i%10), fmt.Sprintf("2001:db8::%x", 1+i%10)}
		address := netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})
		if i%3 == 0 {
			address = netip.MustParseAddr(fmt.Sprintf("fd00:244::%x", i))
		}
		spec.Clients.Returns = append(spec.Clients.Returns, Return{Prefix: netip.PrefixFrom(address, address.BitLen()), Device: "tun",
			Tunnel: vrf.Tunnel{Endpoint: netip.MustParseAddr(ends[i%2]), VNI: 4097}})
	}
	spec.Clients.Returns = append(spec.Clients.Returns, Return{Prefix: netip.MustParsePrefix("10.244.200.0/24"), Device: "loop0"})
	return spec
}

func (w *world) addTunnel() {
	w.kernel.AddLink(vrf.Link{Name: "tun", Kind: "vxlan", Up: true, Carrier: true, NoARP: true})
	w.kernel.AddLink(vrf.Link{Name: "loop0", Kind: "veth", Up: true, Carrier: true})
}

// back are the routes of the return table in the kernel that lead somewhere.
func (w *world) back(t *testing.T) (out []vrf.Route) {
	t.Helper()
	s, err := w.kernel.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Config.Routes {
		if r.Table == returnTable && r.Type == vrf.Unicast {
			out = append(out, r)
		}
	}
	return out
}

// TestReturns: the return table has the clients, each with the next hop of its node,
// and replies that belong to nobody end there.
func TestReturns(t *testing.T) {
	spec := tunnelledClients(60)
	st := readyState()
	st.Links["tun"] = vrf.Link{Name: "tun", Kind: "vxlan", Up: true, Carrier: true}
	st.Links["loop0"] = vrf.Link{Name: "loop0", Kind: "veth", Up: true, Carrier: true}
	d := Resolve(spec, st)
	hops := map[vrf.NextHopID]vrf.NextHop{}
	for _, h := range d.Kernel.NextHops {
		hops[h.ID] = h
	}
	found, ends, unreachable := 0, map[vrf.NextHop]bool{}, 0
	for _, r := range d.Kernel.Routes {
		switch {
		case r.Table != returnTable:
		case r.Type == vrf.Unreachable && r.Prefix.Bits() == 0:
			unreachable++
		default:
			found++
			i := slices.IndexFunc(spec.Clients.Returns, func(b Return) bool { return b.Prefix == r.Prefix })
			h := hops[r.NextHop]
			ends[h] = true
			if want := spec.Clients.Returns[i]; h.Device != want.Device || h.Tunnel != want.Tunnel || h.IPv6 != want.Prefix.Addr().Is6() {
				t.Errorf("%s leads to %q, want %+v", r.Prefix, h, want)
			}
		}
	}
	if found != 61 || unreachable != 2 {
		t.Errorf("%d routes back and %d catch-alls", found, unreachable)
	}
	if len(ends) > 21 { // ten nodes, each for two families, and the loop
		t.Errorf("%d next hops for ten nodes", len(ends))
	}
	lookups := 0
	for _, r := range d.Kernel.Rules {
		if r.Mark == markReturn && r.Table == returnTable {
			lookups++
		}
	}
	if lookups != 2 {
		t.Errorf("%d rules lead to the return table", lookups)
	}
}

// TestReturnsTouchNothingElse: what policies do does not depend on the way back, but
// for refusals, which clients behind tunnels are not told of.
func TestReturnsTouchNothingElse(t *testing.T) {
	with := tunnelledClients(100)
	without := tunnelledClients(100)
	without.Clients.Returns = nil
	st := readyState()
	st.Links["tun"] = vrf.Link{Name: "tun", Kind: "vxlan", Up: true, Carrier: true}
	a, b := Resolve(with, st), Resolve(without, st)
	a.Kernel.Routes = slices.DeleteFunc(a.Kernel.Routes, func(r vrf.Route) bool { return r.Table == returnTable })
	a.Kernel.NextHops = slices.DeleteFunc(a.Kernel.NextHops, func(h vrf.NextHop) bool { return h.Tunnel.Endpoint.IsValid() })
	if !a.NAT.Silent || b.NAT.Silent {
		t.Errorf("silent with tunnels %t, without %t", a.NAT.Silent, b.NAT.Silent)
	}
	a.NAT.Silent = false
	if !reflect.DeepEqual(a.Kernel, b.Kernel) || !reflect.DeepEqual(a.NAT, b.NAT) {
		t.Error("the rest of the data plane differs")
	}
}

// TestReturnsFollowTheDevice: the tunnel belongs to somebody else. Without it the rest
// works; when it comes, so do the routes, and a second daemon finds nothing to do.
func TestReturnsFollowTheDevice(t *testing.T) {
	w, spec := newWorld(), tunnelledClients(5000)
	r := bring(t, w, spec)
	if n := len(w.back(t)); n != 0 || w.advertised("red") == 0 {
		t.Fatalf("%d routes back without a device; %s", n, phases(r))
	}
	w.addTunnel()
	r.kernelDirty.Store(true)
	settle(t, r)
	if n := len(w.back(t)); n != 5001 {
		t.Fatalf("%d routes back, want 5001", n)
	}
	w.kernel.Applied()
	again := w.daemon(spec)
	w.learn()
	w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
	settle(t, again)
	if applied := w.kernel.Applied(); len(applied) > 0 {
		t.Errorf("the next daemon changed %d things, first %v", len(applied), applied[0])
	}
	w.kernel.DeleteLink("tun")
	again.kernelDirty.Store(true)
	settle(t, again)
	if n := len(w.back(t)); n != 1 {
		t.Errorf("%d routes back, want the one by the loop", n)
	}
	spec = tunnelledClients(10)
	spec.Clients.Returns = nil
	again.SetSpec(spec)
	again.take()
	settle(t, again)
	s, err := w.kernel.Snapshot(t.Context())
	if err != nil || slices.ContainsFunc(s.Config.Routes, func(r vrf.Route) bool { return r.Table == returnTable }) {
		t.Errorf("the table is not empty: %v", err)
	}
}
