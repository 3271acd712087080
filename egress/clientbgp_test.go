package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// withClientBGP is the standing example with a speaker towards the clients; red
// and blue both lead to 10.0.0.0/8 by policies.
func withClientBGP() *Spec {
	spec := twoNetworks()
	spec.Policies[0].Rules[0].Destination = netip.MustParsePrefix("10.0.0.0/8")
	med := uint32(10)
	spec.Clients.BGP = &ClientBGP{BGP: BGP{ASN: 64512, RouterID: netip.MustParseAddr("10.244.0.2"),
		GracefulRestart: twoNetworks().Networks[0].BGP.GracefulRestart, Peers: []bgp.Peer{{Address: netip.MustParseAddr("10.244.0.1"), ASN: 64600, IPv4: true}}},
		Policies: true, Attributes: bgp.Attributes{MED: &med},
		Reach: []ClientReach{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Networks: []string{"blue"}}}}
	return spec
}

// told are the prefixes and metrics that the clients' routers are told.
func (w *world) told() string {
	c, ok := w.speaker.Config(ClientsNetwork)
	if !ok {
		return "no speaker"
	}
	var out []string
	for _, a := range c.Advertise {
		text := a.Prefix.String()
		if a.MED != nil {
			text += fmt.Sprintf(" med %d", *a.MED)
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestClientsAreToldWhatWorks: the destinations of policies and those that are
// named, while their networks are up; with a worse metric while not all are.
func TestClientsAreToldWhatWorks(t *testing.T) {
	w := newWorld()
	r := w.daemon(withClientBGP())
	settle(t, r)
	if got := w.told(); got != "" {
		t.Fatalf("before anything works: %s", got)
	}
	w.learn()
	w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
	settle(t, r)
	const all = "10.0.0.0/8 med 10, 192.0.2.0/24, ::/0 med 10, fd00:10::/32 med 10"
	if got := w.told(); got != all {
		t.Errorf("told %s, want %s", got, all)
	}
	c, _ := w.speaker.Config(ClientsNetwork)
	if c.Device != "" || len(c.Peers[0].Import) != 0 {
		t.Errorf("speaker %+v", c)
	}
	w.journal = nil
	w.verdict(probes.Down, "red/icmp0")
	settle(t, r)
	if got, want := w.told(), "10.0.0.0/8 med 110, 192.0.2.0/24, fd00:10::/32 med 10"; got != want {
		t.Errorf("without red: told %s, want %s", got, want)
	}
	if !strings.HasPrefix(w.journal[0], "speaker") {
		t.Errorf("the withdrawal was not first: %q", w.journal)
	}
	s := r.Status().ClientBGP
	if s == nil || len(s.Advertised) != 3 || len(s.Withheld) != 1 || s.Withheld[0].String() != "::/0" {
		t.Errorf("status %+v", s)
	}
	w.verdict(probes.Down, "blue/icmp0")
	settle(t, r)
	if got := w.told(); got != "" {
		t.Errorf("without both: told %s", got)
	}
	w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
	settle(t, r)
	if got := w.told(); got != all {
		t.Errorf("after both are back: told %s", got)
	}
	spec := withClientBGP()
	spec.Clients.BGP = nil
	r.SetSpec(spec)
	r.take()
	settle(t, r)
	if got := w.told(); got != "no speaker" || r.Status().ClientBGP != nil {
		t.Errorf("without clients.bgp: %s", got)
	}
}

// TestClientsAreNotToldOfAFailedDataPlane: what the kernel refused is not
// advertised, whichever operation of a start fails.
func TestClientsAreNotToldOfAFailedDataPlane(t *testing.T) {
	ops := func() int {
		w := newWorld()
		bring(t, w, withClientBGP())
		return len(w.kernel.Applied())
	}()
	for n := 1; n <= ops; n++ {
		w := newWorld()
		r := w.daemon(withClientBGP())
		w.kernel.FailNth(n, errors.New("boom"))
		_ = r.round(t.Context())
		w.learn()
		w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
		for range 3 {
			_ = r.round(t.Context())
			up := map[string]bool{}
			for _, s := range r.Status().Networks {
				up[s.Name] = s.Phase == PhaseUp
			}
			if got := w.told(); strings.Contains(got, "192.0.2.0/24") && !up["blue"] || strings.Contains(got, "::/0") && !up["red"] {
				t.Errorf("operation %d failed: told %s with %v up", n, got, up)
			}
		}
	}
}

// TestClientsSpeakerRestarts: a restarted daemon says so, and tells all it told
// before in its first round.
func TestClientsSpeakerRestarts(t *testing.T) {
	w := newWorld()
	bring(t, w, withClientBGP())
	before := w.told()
	r := w.daemon(withClientBGP())
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, _ := w.speaker.Config(ClientsNetwork)
	if got := w.told(); got != before || !c.Restarting {
		t.Errorf("the first round after a restart tells %s (restarting %t), before it %s", got, c.Restarting, before)
	}
	have, err := w.kernel.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if plan := vrf.Diff(have, r.prev.Kernel); !plan.Empty() {
		t.Errorf("left to do: %s", plan)
	}
}
