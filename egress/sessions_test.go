package egress

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
)

// fakeBFD is a process of BFD sessions that outlives daemons: a session is Down
// until the test says otherwise.
type fakeBFD struct {
	configs []bfd.Config
	states  map[string]bfd.State
	made    uint32
	fails   error
	notify  func()
}

func newFakeBFD() *fakeBFD { return &fakeBFD{states: map[string]bfd.State{}, notify: func() {}} }

func (f *fakeBFD) Set(want []bfd.Config) error {
	if f.fails != nil {
		return f.fails
	}
	states := map[string]bfd.State{}
	for _, c := range want {
		st, runs := f.states[c.Name]
		if !runs {
			f.made++
			st = bfd.State{Name: c.Name, Status: bfd.Down, RemoteStatus: bfd.Down, Since: time.Now(), Discriminator: f.made, TxInterval: time.Second}
		}
		states[c.Name] = st
	}
	f.configs, f.states = slices.Clone(want), states
	return nil
}

func (f *fakeBFD) State() []bfd.State {
	var out []bfd.State
	for _, st := range f.states {
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b bfd.State) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// put changes a session as its peer or its process would.
func (f *fakeBFD) put(change func(*bfd.State), gateways ...string) {
	for _, a := range gateways {
		st := f.states["red/bfd@"+a]
		st.Name = "red/bfd@" + a
		change(&st)
		f.states[st.Name] = st
	}
	f.notify()
}

func sessionUp(st *bfd.State) {
	st.Status, st.RemoteStatus, st.Diag, st.Since, st.DetectTime = bfd.Up, bfd.Up, bfd.NoDiag, time.Now(), 900*time.Millisecond
	st.Ups++
}

func sessionDown(st *bfd.State) {
	st.Status, st.RemoteStatus, st.Diag, st.Since = bfd.Down, bfd.Up, bfd.DetectionTimeExpired, time.Now()
	st.Downs++
}

var four = []string{"172.16.0.11", "172.16.0.12", "172.16.0.13", "172.16.0.14"}

// fourBFD is fourHops with BFD, and no rule for IPv6.
func fourBFD() *Spec {
	spec := fourHops()
	spec.Networks[0].NextHopProbes = nil
	spec.Networks[0].NextHopBFD = []bfd.Config{{Name: "red/bfd", Device: "red", DesiredMinTx: 300 * time.Millisecond, RequiredMinRx: 300 * time.Millisecond, DetectMult: 3}}
	spec.Policies[0].Rules = spec.Policies[0].Rules[:1]
	return spec
}

// hopsInUse are the gateways in the kernel's groups.
func (w *world) hopsInUse(t *testing.T, r *Router) string {
	t.Helper()
	have, err := w.kernel.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for k := range Observe(have, r.spec.Settings.Ownership).InUse {
		out = append(out, k.gateway.String()[len("172.16.0.1"):])
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func TestJudgeSession(t *testing.T) {
	for name, tt := range map[string]struct {
		st    bfd.State
		old   bool
		want  probes.Verdict
		waits bool
	}{
		"up":                               {bfd.State{Status: bfd.Up, RemoteStatus: bfd.Up, Ups: 1}, true, probes.Up, false},
		"was up":                           {bfd.State{Status: bfd.Down, RemoteStatus: bfd.Up, Ups: 1}, false, probes.Down, false},
		"was up, comes up":                 {bfd.State{Status: bfd.Init, RemoteStatus: bfd.Down, Ups: 1}, false, probes.Down, false},
		"never up, young":                  {bfd.State{Status: bfd.Init, RemoteStatus: bfd.Down}, false, probes.Unknown, true},
		"never up, old":                    {bfd.State{Status: bfd.Down, RemoteStatus: bfd.Down}, true, probes.Down, false},
		"peer is admin-down":               {bfd.State{Status: bfd.Down, RemoteStatus: bfd.AdminDown, Ups: 1}, true, probes.Unknown, false},
		"we are admin-down":                {bfd.State{Status: bfd.AdminDown, RemoteStatus: bfd.Up, Ups: 1}, true, probes.Unknown, false},
		"process is gone":                  {bfd.State{Status: bfd.Up, RemoteStatus: bfd.Up, Ups: 1, Stale: true}, true, probes.Unknown, false},
		"process never answered":           {bfd.State{Status: bfd.Down, Stale: true}, true, probes.Unknown, false},
		"process is gone, and it was down": {bfd.State{Status: bfd.Down, RemoteStatus: bfd.Down, Ups: 1, Stale: true}, true, probes.Unknown, false},
	} {
		if got, waits := judgeSession(tt.st, tt.old); got != tt.want || waits != tt.waits {
			t.Errorf("%s: %v, waits %t; want %v, %t", name, got, waits, tt.want, tt.waits)
		}
	}
}

// TestSessionsOfNextHops: each gateway gets a session, link-local ones with the
// port as their zone.
func TestSessionsOfNextHops(t *testing.T) {
	spec := fourBFD()
	spec.Networks[0].Ports[0].Addresses = append(spec.Networks[0].Ports[0].Addresses, netip.MustParsePrefix("fe80::1/64"))
	spec.Policies[0].Rules = append(spec.Policies[0].Rules, Rule{Destination: netip.MustParsePrefix("::/0"), Action: ActionNetwork,
		Network: "red", Pool: "red-pool", NextHops: named("fd00:16::11", "fe80::11")})
	st := readyState()
	st.Learned = nil
	d := Resolve(spec, st)
	var got []string
	for _, c := range d.BFD {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if c.Device != "red" || c.DetectMult != 3 || c.DesiredMinTx != 300*time.Millisecond || c.RequiredMinRx != c.DesiredMinTx || c.Multihop {
			t.Errorf("%+v", c)
		}
		got = append(got, c.Name+" "+c.Peer.String())
	}
	want := []string{"red/bfd@172.16.0.11 172.16.0.11", "red/bfd@172.16.0.12 172.16.0.12", "red/bfd@172.16.0.13 172.16.0.13",
		"red/bfd@172.16.0.14 172.16.0.14", "red/bfd@fd00:16::11 fd00:16::11", "red/bfd@fe80::11%eth1 fe80::11%eth1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(d.Probes) != 0 {
		t.Errorf("probes %v beside the sessions", d.Probes)
	}
}

// TestSessionDecidesOnNextHop: what a session says takes a next hop out of the
// groups and lets it come back, and an admin-down peer changes nothing.
func TestSessionDecidesOnNextHop(t *testing.T) {
	w := newWorld()
	r := w.daemon(fourBFD())
	settle(t, r)
	if got := phases(r); got != "red Down" || w.hopsInUse(t, r) != "" {
		t.Fatalf("%s with %q before any session is up", got, w.hopsInUse(t, r))
	}
	w.bfd.put(sessionUp, four...)
	settle(t, r)
	if got := phases(r); got != "red Up" || w.hopsInUse(t, r) != "1234" {
		t.Fatalf("%s with %q", got, w.hopsInUse(t, r))
	}
	w.bfd.put(sessionDown, four[1])
	settle(t, r)
	if got := w.hopsInUse(t, r); got != "134" {
		t.Errorf("in use: %q after the second went down", got)
	}
	w.bfd.put(func(st *bfd.State) { st.Status, st.RemoteStatus, st.Diag = bfd.Down, bfd.AdminDown, bfd.NeighborDown }, four[0])
	settle(t, r)
	if got := w.hopsInUse(t, r); got != "134" {
		t.Errorf("in use: %q after the first's peer went admin-down", got)
	}
	w.bfd.put(sessionUp, four[0], four[1])
	settle(t, r)
	if got := w.hopsInUse(t, r); got != "1234" {
		t.Errorf("in use: %q after all are back", got)
	}
	w.bfd.put(sessionDown, four...)
	settle(t, r)
	if got := phases(r); got != "red Down" {
		t.Errorf("%s without a next hop", got)
	}
}

// TestFastPathHearsSessions: the groups are changed before the round looks at
// anything else.
func TestFastPathHearsSessions(t *testing.T) {
	w := newWorld()
	r := w.daemon(fourBFD())
	settle(t, r)
	w.bfd.put(sessionUp, four...)
	settle(t, r)
	w.kernel.Applied()
	w.bfd.put(sessionDown, four[1])
	r.loseHops(t.Context())
	if n := len(w.kernel.Applied()); n != 2 || w.hopsInUse(t, r) != "134" {
		t.Errorf("%d operations, in use %q; want one for each of the two groups", n, w.hopsInUse(t, r))
	}
}

// TestLostProcessChangesNothing: while the process of the sessions is gone, and
// until its successor's have come up, what is in use stays.
func TestLostProcessChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.daemon(fourBFD())
		settle(t, r)
		w.bfd.put(sessionUp, four...)
		settle(t, r)
		w.bfd.put(sessionDown, four[3])
		settle(t, r)
		time.Sleep(time.Hour) // of the bubble
		w.bfd.put(func(st *bfd.State) { st.Stale = true }, four...)
		settle(t, r)
		if got := w.hopsInUse(t, r); got != "123" {
			t.Errorf("in use: %q while the process is gone", got)
		}
		// Another process has other sessions, which have not been up.
		w.bfd.put(func(st *bfd.State) {
			*st = bfd.State{Name: st.Name, Status: bfd.Down, RemoteStatus: bfd.Down, Discriminator: st.Discriminator + 100, Since: time.Now()}
		}, four...)
		settle(t, r)
		if got := w.hopsInUse(t, r); got != "123" {
			t.Errorf("in use: %q while the sessions of the new process come up", got)
		}
		r.sessions.timer.arm(0)
	})
}

// TestSilentSessionGoesDown runs the loop: a session that never comes up is Down
// in the end, without any event but the clock's, and one that changes is heard
// at once.
func TestSilentSessionGoesDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.daemon(fourBFD())
		r.SetSpec(fourBFD())
		w.bfd.notify = r.trigger.Fire
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		w.bfd.put(sessionUp, four[:3]...)
		synctest.Wait()
		begin := time.Now()
		if got := w.hopsInUse(t, r); got != "123" {
			t.Errorf("in use: %q", got)
		}
		reason := func() string { return r.Status().Networks[0].NextHops[3].Reason }
		if got := reason(); !strings.Contains(got, "has no verdict yet") {
			t.Errorf("at first: %q", got)
		}
		time.Sleep(bfdGrace) // of the bubble
		synctest.Wait()
		if got := reason(); got != "probe red/bfd@172.16.0.14 is down" {
			t.Errorf("after %v: %q", time.Since(begin), got)
		}
		w.bfd.put(sessionUp, four[3])
		synctest.Wait()
		if got := w.hopsInUse(t, r); got != "1234" || time.Since(begin) != bfdGrace {
			t.Errorf("in use: %q, %v later", got, time.Since(begin))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestLongIntervalNeedsLonger: a session with an interval of a minute cannot come
// up in ten seconds.
func TestLongIntervalNeedsLonger(t *testing.T) {
	w := sessionWatch{timer: alarm{fire: func() {}}}
	defer w.timer.arm(0)
	begin := time.Now()
	st := bfd.State{Name: "a", Status: bfd.Down, RemoteStatus: bfd.Down, Discriminator: 1, TxInterval: time.Minute, Since: begin}
	for after, want := range map[time.Duration]probes.Verdict{0: probes.Unknown, 179 * time.Second: probes.Unknown, 180 * time.Second: probes.Down} {
		if got := w.verdicts([]bfd.State{st}, begin.Add(after))["a"]; got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
}

// learnedHops is a gateway whose next hops come by BGP, those of routes.
type learnedHops struct {
	*world
	t     *testing.T
	bound int
	r     *Router
}

func (l *learnedHops) start() {
	spec := twoNetworks()
	spec.Networks[0].NextHopBFD = fourBFD().Networks[0].NextHopBFD
	spec.Networks[0].Ports[0].Addresses = fourBFD().Networks[0].Ports[0].Addresses
	spec.Networks[0].MaxNextHops = l.bound
	l.r = l.daemon(spec)
	settle(l.t, l.r)
}

func (l *learnedHops) learn(gateways ...string) {
	route := bgp.Route{Prefix: netip.MustParsePrefix("10.0.0.0/24")}
	for _, h := range named(gateways...) {
		route.NextHops = append(route.NextHops, h.Address)
	}
	l.speaker.PutState(bgp.State{Network: "red", Routes: []bgp.Route{route}, Synced: true},
		bgp.State{Network: "blue", Routes: readyState().Learned["blue"], Synced: true})
	l.verdict(probes.Up, "red/icmp0", "blue/icmp0")
	settle(l.t, l.r)
}

// TestRestartKeepsSessions: a new daemon does not disturb sessions that run,
// also those with gateways which no group has before the speaker is in sync.
func TestRestartKeepsSessions(t *testing.T) {
	for _, bound := range []int{0, 1} {
		l := &learnedHops{world: newWorld(), t: t, bound: bound}
		l.start()
		l.learn(four[:3]...)
		l.bfd.put(sessionUp, four[:3]...)
		settle(t, l.r)
		l.bfd.put(sessionDown, four[2])
		settle(t, l.r)
		if got := l.hopsInUse(t, l.r); len(l.bfd.configs) != 3 || got != "12" {
			t.Fatalf("%d sessions, in use %q", len(l.bfd.configs), got)
		}
		before := l.bfd.made
		l.kernel.Applied()
		l.start()
		l.learn(four[:3]...)
		if l.bfd.made != before || len(l.bfd.configs) != 3 {
			t.Errorf("%d sessions were made anew, %d run", l.bfd.made-before, len(l.bfd.configs))
		}
		if ops := l.kernel.Applied(); len(ops) != 0 {
			t.Errorf("the restart did %v", ops)
		}
		// A session goes with the last route by its gateway; a path that drains still
		// needs it.
		if l.learn(four[0]); bound == 0 && len(l.bfd.configs) != 1 {
			t.Errorf("%d sessions for one gateway", len(l.bfd.configs))
		}
	}
}

// TestProbesOfNextHopsAreInTheStatus, whatever their kind.
func TestProbesOfNextHopsAreInTheStatus(t *testing.T) {
	spec := fourBFD()
	spec.Networks[0].NextHopProbes = fourHops().Networks[0].NextHopProbes
	spec.Networks[0].NextHopProbes[0] = probes.Config{Name: "red/nh", Network: "red", Device: "red", Type: probes.ICMP, Require: probes.Any,
		Interval: time.Second, AttemptTimeout: time.Second, Rise: 1, Fall: 1}
	w := newWorld()
	r := w.daemon(spec)
	settle(t, r)
	w.bfd.put(sessionUp, four...)
	w.bfd.put(sessionDown, four[1])
	w.verdict(probes.Up, "red/nh@172.16.0.11")
	settle(t, r)
	var got []string
	for _, p := range r.Status().Networks[0].Probes {
		line := p.Name + " " + p.Verdict + " " + p.Targets[0].Target + " " + p.Targets[0].Verdict
		if b := p.BFD; b != nil {
			line += " " + b.State + "/" + b.PeerState + " " + b.Diagnostic + " " + b.DetectTime.String() + " " + p.Targets[0].LastError
		}
		got = append(got, line)
	}
	want := []string{
		"red/nh@172.16.0.11 up 172.16.0.11 up", "red/nh@172.16.0.12 unknown 172.16.0.12 unknown",
		"red/nh@172.16.0.13 unknown 172.16.0.13 unknown", "red/nh@172.16.0.14 unknown 172.16.0.14 unknown",
		"red/bfd@172.16.0.11 up 172.16.0.11 up up/up none 900ms ",
		"red/bfd@172.16.0.12 down 172.16.0.12 down down/up detection time expired 900ms detection time expired",
		"red/bfd@172.16.0.13 up 172.16.0.13 up up/up none 900ms ", "red/bfd@172.16.0.14 up 172.16.0.14 up up/up none 900ms ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
