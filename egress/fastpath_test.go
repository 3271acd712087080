package egress

import (
	"context"
	"errors"
	"testing"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// fourHopsWorld is a working gateway with four probed next hops.
func fourHopsWorld(t *testing.T) (*world, *Router) {
	t.Helper()
	w := newWorld()
	r := w.daemon(fourHops())
	settle(t, r)
	for name := range newMachine(t, fourHops()).st.Verdicts {
		w.verdict(probes.Up, name)
	}
	settle(t, r)
	if got := phases(r); got != "red Up" {
		t.Fatalf("phases %q: %s", got, r.Status().Networks[0].Reason)
	}
	w.kernel.Applied()
	w.journal = nil
	return w, r
}

// TestLostHopIsOneMessageForEachGroup: a verdict changes the groups of the next
// hop before anything else, one message each, and the rest of the round agrees.
func TestLostHopIsOneMessageForEachGroup(t *testing.T) {
	w, r := fourHopsWorld(t)
	w.verdict(probes.Down, "red/nh@172.16.0.12")
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	groups := map[vrf.NextHopID]int{}
	for i, a := range w.kernel.Applied() {
		if _, unused := a.(vrf.DeleteNextHop); unused && i >= 2 {
			continue // nothing uses the lost one any more
		}
		put, ok := a.(vrf.PutGroup)
		if !ok {
			t.Errorf("operation %d is %s", i, a)
			continue
		}
		groups[put.Group.ID]++
		if !put.Replace || len(put.Group.Members) != 2 {
			t.Errorf("%s: want a replacement with two members", a)
		}
	}
	if len(groups) != 2 {
		t.Errorf("%d groups changed, want the 2 that had the next hop", len(groups))
	}
	for id, n := range groups {
		if n != 1 {
			t.Errorf("group %d changed %d times", id, n)
		}
	}
	settle(t, r)
	if n := len(w.kernel.Applied()); n != 0 {
		t.Errorf("%d operations more", n)
	}
}

// TestLostHopThatFailsIsTriedAgain: when the message fails, the round reads the
// kernel anew and does it.
func TestLostHopThatFailsIsTriedAgain(t *testing.T) {
	w, r := fourHopsWorld(t)
	w.kernel.FailNth(1, errors.New("no buffer space available"))
	w.verdict(probes.Down, "red/nh@172.16.0.12")
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	have, _ := w.kernel.Snapshot(t.Context())
	if plan := vrf.Diff(have, r.prev.Kernel); !plan.Empty() {
		t.Errorf("left to do:\n%s", plan)
	}
}

// TestSweepsFollowPaths: a path without new flows goes when a sweep finds it
// empty, and not before; flows of a removed pool are ended.
func TestSweepsFollowPaths(t *testing.T) {
	w, r := fourHopsWorld(t)
	r.flows.sweep(t.Context(), r.flows.current())
	var held PathDecision
	for _, p := range r.prev.Networks[0].Paths {
		if !p.V6 {
			held = p
		}
	}
	id := r.compiled.poolIDs["red-pool"]
	flow := flows.Flow{Mark: uint32(exitMark(held.Number, id)), Src: addrOf("10.244.1.7"), Dst: addrOf("192.0.2.1"), Address: addrOf("198.51.100.3")}
	w.flows.Add(flow)
	edited := fourHops()
	edited.Policies[0].Rules[0].NextHops = named("172.16.0.13", "172.16.0.14")
	r.SetSpec(edited)
	r.take()
	settle(t, r)
	sweep := func() {
		r.flows.sweep(context.Background(), r.flows.current())
		settle(t, r)
	}
	sweep()
	if left := draining(r); len(left) != 1 || left[0] != held.Number {
		t.Fatalf("draining paths %v, want only %d, which has a flow", left, held.Number)
	}
	if len(w.flows.Flows()) != 1 {
		t.Fatal("a flow was ended that an edit leaves where it is")
	}
	w.flows.Remove(func(flows.Flow) bool { return true })
	sweep()
	if left := draining(r); len(left) != 0 {
		t.Errorf("draining paths %v, want none", left)
	}
	flow.Mark = uint32(exitMark(r.prev.Networks[0].Paths[0].Number, id))
	flow.Address = addrOf("203.0.113.9")
	w.flows.Add(flow)
	sweep()
	if n := len(w.flows.Flows()); n != 0 {
		t.Errorf("%d flows have an address that is no pool's", n)
	}
}

func draining(r *Router) []uint16 {
	var out []uint16
	for _, n := range r.prev.Networks {
		for _, p := range n.Paths {
			if !p.Active {
				out = append(out, p.Number)
			}
		}
	}
	return out
}

// TestEndedSessionIsOneMessageForEachGroup: when the routes of a peer go, its next
// hops leave their groups before the routes leave the kernel.
func TestEndedSessionIsOneMessageForEachGroup(t *testing.T) {
	w := newWorld()
	r := bring(t, w, twoNetworks())
	w.kernel.Applied()
	routes := readyState().Learned["red"]
	var kept []bgp.Route
	for _, route := range routes {
		if route.Prefix.Addr().Is4() {
			kept = append(kept, route)
		}
	}
	if len(kept) == 0 || len(kept) == len(routes) {
		t.Fatalf("of %v, %v are left: this proves nothing", routes, kept)
	}
	w.speaker.PutState(bgp.State{Network: "red", Routes: kept, Synced: true})
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	applied := w.kernel.Applied()
	put, ok := applied[0].(vrf.PutGroup)
	if !ok || !put.Replace {
		t.Fatalf("the first operation is %s", applied[0])
	}
	have := map[vrf.NextHopID]vrf.NextHop{}
	snapshot, _ := w.kernel.Snapshot(t.Context())
	for _, h := range snapshot.Config.NextHops {
		have[h.ID] = h
	}
	if len(put.Group.Members) != 1 || !have[put.Group.Members[0].ID].Blackhole {
		t.Errorf("the group became %v", put.Group)
	}
	for _, a := range applied[1:] {
		if again, ok := a.(vrf.PutGroup); ok {
			t.Errorf("a second message for a group: %s", again)
		}
	}
	settle(t, r)
	if n := len(w.kernel.Applied()); n != 0 {
		t.Errorf("%d operations more", n)
	}
}
