package egress

import (
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes"
)

// TestRestartChangesNothing is law 2 on the fakes: a new process with the same
// Spec finds everything in place, advertises at once and keeps learned routes
// until the speaker is in sync.
func TestRestartChangesNothing(t *testing.T) {
	w := newWorld()
	bring(t, w, twoNetworks())
	w.kernel.Applied()
	w.journal = nil

	r := w.daemon(twoNetworks())
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"speaker advertises 4"}; !slices.Equal(w.journal, want) {
		t.Errorf("a restart did %v, want only %v", w.journal, want)
	}
	if c, _ := w.speaker.Config("red"); !c.Restarting {
		t.Error("the speaker was not told that the data plane is forwarding")
	}
	// One route of two has come back, the speaker is not in sync: both stay.
	w.speaker.PutState(bgp.State{Network: "red", Routes: readyState().Learned["red"][:1]})
	settle(t, r)
	if n := len(w.kernel.Applied()); n != 0 {
		t.Errorf("%d operations while the speaker was not in sync", n)
	}
	// In sync with one route less: that one goes, and only that one.
	w.speaker.PutState(bgp.State{Network: "red", Routes: readyState().Learned["red"][:1], Synced: true},
		bgp.State{Network: "blue", Routes: readyState().Learned["blue"], Synced: true})
	settle(t, r)
	var routes []string
	for _, a := range w.kernel.Applied() {
		if strings.HasPrefix(a.String(), "ip route") || strings.HasPrefix(a.String(), "ip -6 route") {
			routes = append(routes, a.String())
		}
	}
	if len(routes) != 1 || !strings.Contains(routes[0], "del") || !strings.Contains(routes[0], "fd00:10::/64") {
		t.Errorf("route operations %q, want one deletion of fd00:10::/64", routes)
	}
}

func TestRestartWhileDownStaysDown(t *testing.T) {
	w := newWorld()
	r := bring(t, w, twoNetworks())
	w.verdict(probes.Down, "red/icmp0")
	settle(t, r)
	r = w.daemon(twoNetworks())
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := phases(r); got != "blue Up, red Down" || w.advertised("red") != 0 {
		t.Errorf("after the restart: %q, red advertises %d: an unknown verdict is not up", got, w.advertised("red"))
	}
}

// TestRestartWithAnotherSpec: nothing of the old Spec is left.
func TestRestartWithAnotherSpec(t *testing.T) {
	w := newWorld()
	bring(t, w, twoNetworks())
	other := twoNetworks()
	other.Networks, other.Pools, other.Policies = other.Networks[:1], other.Pools[:1], other.Policies[:1]
	settle(t, w.daemon(other))

	fresh := newWorld()
	settle(t, fresh.daemon(other))
	// The restarted one keeps the routes and verdict it took over; the rest is equal.
	have, _ := w.kernel.Snapshot(t.Context())
	for _, v := range have.Config.VRFs {
		if v.Name == "blue" {
			t.Error("the VRF of a removed network is left")
		}
	}
	if !w.filter.Ruleset().Equal(fresh.filter.Ruleset()) {
		t.Errorf("packet filter differs from that of a fresh start:\n%s\n---\n%s", w.filter.Ruleset(), fresh.filter.Ruleset())
	}
}
