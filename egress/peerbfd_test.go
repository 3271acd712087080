package egress

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes/bfd"
)

// withPeerBFD is the standing example with BFD towards red's first peer.
func withPeerBFD() (*Spec, string) {
	spec := twoNetworks()
	red := &spec.Networks[0]
	c := bfd.Config{Name: PeerSessionName("red", red.BGP.Peers[0].Address), Device: "red", Peer: red.BGP.Peers[0].Address,
		DesiredMinTx: 300 * time.Millisecond, RequiredMinRx: 300 * time.Millisecond, DetectMult: 3}
	red.BGP.BFD = []bfd.Config{c}
	return spec, c.Name
}

// change makes one session's state another one.
func (f *fakeBFD) change(name string, how func(*bfd.State)) {
	st := f.states[name]
	how(&st)
	f.states[name] = st
}

// downPeers are the peers that the speaker was told to hold down.
func (w *world) downPeers(network string) string {
	c, _ := w.speaker.Config(network)
	var out []string
	for _, p := range c.Peers {
		if p.Down != "" {
			out = append(out, p.Address.String()+": "+p.Down)
		}
	}
	return strings.Join(out, ", ")
}

// TestPeerFollowsItsSession: a BGP session goes down with its BFD session, before
// anything else is worked out, and may come back with it; a BFD session that
// never came up, or that somebody ended on purpose, says nothing.
func TestPeerFollowsItsSession(t *testing.T) {
	spec, name := withPeerBFD()
	w := newWorld()
	r := bring(t, w, spec)
	if _, runs := w.bfd.states[name]; !runs || len(w.bfd.states) != 1 {
		t.Fatalf("sessions: %v", w.bfd.states)
	}
	check := func(when, want string) {
		t.Helper()
		settle(t, r)
		if got := w.downPeers("red"); got != want {
			t.Errorf("%s: held down %q, want %q", when, got, want)
		}
		if got := w.downPeers("blue"); got != "" {
			t.Errorf("%s: blue's %q is held down", when, got)
		}
	}
	check("never up", "")
	w.bfd.change(name, sessionUp)
	check("up", "")
	w.bfd.change(name, sessionDown)
	w.journal = nil
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.journal) == 0 || !strings.HasPrefix(w.journal[0], "speaker advertises 4") {
		t.Errorf("the round went %q, want the speaker first, and nothing withdrawn", w.journal)
	}
	check("down", "172.16.0.2: BFD session down: detection time expired")
	w.bfd.change(name, func(st *bfd.State) { st.Status = bfd.Init })
	check("coming up", "172.16.0.2: BFD session down: detection time expired")
	w.bfd.change(name, sessionUp)
	check("up again", "")
	w.bfd.change(name, func(st *bfd.State) { st.Status, st.RemoteStatus, st.Diag = bfd.Down, bfd.AdminDown, bfd.NeighborDown })
	check("ended by the peer's administrator", "")
	w.bfd.change(name, sessionDown)
	w.bfd.change(name, func(st *bfd.State) { st.Stale = true })
	check("of a process that is gone", "")
}

// TestLosePeersLeavesANewSpecToTheRound: what else the Spec changes is not done
// out of order.
func TestLosePeersLeavesANewSpecToTheRound(t *testing.T) {
	spec, name := withPeerBFD()
	w := newWorld()
	r := bring(t, w, spec)
	w.bfd.change(name, sessionUp)
	settle(t, r)
	other, _ := withPeerBFD()
	other.Networks[0].BGP.Peers[0].HoldTime = time.Minute
	r.SetSpec(other)
	r.take()
	w.bfd.change(name, sessionDown)
	w.journal = nil
	r.losePeers(t.Context())
	if len(w.journal) != 0 {
		t.Errorf("did %q", w.journal)
	}
	settle(t, r)
	if got := w.downPeers("red"); got == "" {
		t.Error("the round forgot the peer")
	}
}

// TestPeerSharesTheNextHopsSession: on a link two systems have one session, which
// is there while the peer is configured, whatever routes there are.
func TestPeerSharesTheNextHopsSession(t *testing.T) {
	spec, _ := withPeerBFD()
	red := &spec.Networks[0]
	red.NextHopBFD = []bfd.Config{{Name: "red/bfd", Device: "red", DesiredMinTx: time.Second, RequiredMinRx: time.Second, DetectMult: 5}}
	red.BGP.BFD[0].Name = NextHopSessionName(red.NextHopBFD[0], red.BGP.BFD[0].Peer)
	far := netip.MustParseAddr("192.0.2.9")
	red.BGP.Peers = append(red.BGP.Peers, bgp.Peer{Address: far, ASN: 65009, Multihop: 2})
	red.BGP.BFD = append(red.BGP.BFD, bfd.Config{Name: PeerSessionName("red", far), Device: "red", Peer: far, Multihop: true, MinTTL: 254,
		DesiredMinTx: time.Second, RequiredMinRx: time.Second, DetectMult: 3})
	st := readyState()
	st.Learned = nil
	d := Resolve(spec, st)
	var names []string
	for _, c := range d.BFD {
		names = append(names, c.Name)
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Join(names, " "); got != "red/bfd@172.16.0.2 red/bgp@192.0.2.9" {
		t.Errorf("sessions %s", got)
	}
	st.Broken = map[string]string{"red/bfd@172.16.0.2": "a", "red/bgp@192.0.2.9": "b"}
	for _, c := range Resolve(spec, st).BGP {
		for _, p := range c.Peers {
			if want := map[string]string{"172.16.0.2": "a", "192.0.2.9": "b"}[p.Address.String()]; c.Network == "red" && p.Down != want {
				t.Errorf("%s: down %q, want %q", p.Address, p.Down, want)
			}
		}
	}
	if spec.Networks[0].BGP.Peers[0].Down != "" {
		t.Error("the Spec was changed")
	}
}
