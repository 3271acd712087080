package bfd_test

import (
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/bfd"
)

// TestInterop: every kind of session, whoever takes the first step, comes up on
// both sides and agrees on the slower interval.
func TestInterop(t *testing.T) {
	for _, kind := range []string{"frr", "bird"} {
		for _, role := range []struct {
			name                   string
			wePassive, theyPassive bool
		}{{"both active", false, false}, {"we passive", true, false}, {"they passive", false, true}} {
			t.Run(kind+"/"+role.name, func(t *testing.T) {
				l, gw, s := newGateway(t, kind)
				n := connect(t, l, gw, "red", 1)
				want := n.sessions()
				for i := range want {
					want[i].Passive = role.wePassive
				}
				if !role.theyPassive {
					s.set(want...)
				}
				n.start(kind, role.theyPassive, want)
				// A passive FRR stays silent for ever when the first packet comes before
				// it knows its interfaces.
				s.set(want...)
				for _, c := range want {
					s.await(c.Name, "up at 80 ms", func(st bfd.State) bool {
						return st.Status == bfd.Up && st.RemoteStatus == bfd.Up && st.TxInterval == theirInterval &&
							st.RxInterval == theirInterval && st.DetectTime == patience*theirInterval
					})
					n.theirs(c, "up at 80 ms", func(x lab.BFDSession) bool {
						if kind == "frr" {
							return x.State == "Up" && x.RemoteTx == c.DesiredMinTx && x.RemoteRx == c.RequiredMinRx
						}
						return x.State == "Up" && x.Interval == theirInterval && x.Timeout == patience*theirInterval
					})
				}
			})
		}
	}
}

// TestFailures: what goes wrong, and what is done on purpose, as both sides see it.
func TestFailures(t *testing.T) {
	for _, kind := range []string{"frr", "bird"} {
		t.Run(kind, func(t *testing.T) {
			l, gw, s := newGateway(t, kind)
			n := connect(t, l, gw, "red", 1)
			want := n.sessions()
			n.start(kind, false, want)
			s.set(want...)
			s.up(names(want)...)
			n.theyAre("Up", want...)
			n.freeze(s, want)
			n.cut(s, want)
			n.adminDownHere(s, want)
			n.adminDownThere(s, want)
			n.restart(s, want)
			n.retime(s, want)
			n.remove(s, want)
		})
	}
}

// freeze stops the peer's BFD, the link staying up.
func (n *network) freeze(s *speaker, want []bfd.Config) {
	n.t.Helper()
	at := time.Now()
	if err := n.router.Freeze(); err != nil {
		n.t.Fatal(err)
	}
	for _, c := range want {
		st := s.await(c.Name, "down by time", func(st bfd.State) bool {
			return st.Status == bfd.Down && st.Diag == bfd.DetectionTimeExpired && st.RemoteDiscriminator == 0
		})
		n.t.Logf("%s frozen: %s down %v later (80 ms x 40)", n.router.Kind, c.Name, st.Since.Sub(at).Round(time.Millisecond))
	}
	if err := n.router.Thaw(); err != nil {
		n.t.Fatal(err)
	}
	s.up(names(want)...)
	n.theyAre("Up", want...)
}

// cut takes the link down: FRR and BIRD hear of it, we see silence.
func (n *network) cut(s *speaker, want []bfd.Config) {
	n.t.Helper()
	if err := n.far.SetLink("u0", false); err != nil {
		n.t.Fatal(err)
	}
	for _, c := range want {
		s.await(c.Name, "down", func(st bfd.State) bool { return st.Status == bfd.Down && st.Diag != bfd.NoDiag })
	}
	if err := n.far.SetLink("u0", true); err != nil {
		n.t.Fatal(err)
	}
	s.up(names(want)...)
	n.theyAre("Up", want...)
}

func (n *network) adminDownHere(s *speaker, want []bfd.Config) {
	n.t.Helper()
	off := append([]bfd.Config{}, want...)
	off[0].AdminDown = true
	before := s.state(want[1].Name)
	s.set(off...)
	s.await(off[0].Name, "admin-down", func(st bfd.State) bool { return st.Status == bfd.AdminDown && st.Diag == bfd.AdministrativelyDown })
	n.theirs(off[0], "down by us", func(x lab.BFDSession) bool {
		return x.State == "Down" && (n.router.Kind != "frr" || x.Diag == "neighbor signaled session down" && x.RemoteDiag == "administratively down")
	})
	s.set(want...)
	s.up(off[0].Name)
	n.theyAre("Up", off[0])
	if after := s.state(want[1].Name); after.Downs != before.Downs || !after.Since.Equal(before.Since) {
		n.t.Errorf("%s was disturbed: %+v", want[1].Name, after)
	}
}

// adminDownThere: FRR says so, and BIRD 2.0.12, when it is disabled, just falls silent.
func (n *network) adminDownThere(s *speaker, want []bfd.Config) {
	n.t.Helper()
	n.shut(want[0], true)
	s.await(want[0].Name, "down by them", func(st bfd.State) bool {
		if n.router.Kind == "bird" {
			return st.Status == bfd.Down && st.Diag == bfd.DetectionTimeExpired
		}
		return st.Status == bfd.Down && st.Diag == bfd.NeighborDown && st.RemoteStatus == bfd.AdminDown
	})
	n.shut(want[0], false)
	s.up(names(want)...)
	n.theyAre("Up", want...)
}

func (n *network) shut(c bfd.Config, down bool) {
	n.t.Helper()
	if n.router.Kind == "frr" {
		if err := n.router.ShutBFD(theirEnd(c, false), down); err != nil {
			n.t.Fatal(err)
		}
		return
	}
	word := map[bool]string{true: "disable", false: "enable"}[down]
	if _, err := n.router.Command(word, "bfd1"); err != nil {
		n.t.Fatal(err)
	}
}

// restart kills the peer, which comes back with new discriminators.
func (n *network) restart(s *speaker, want []bfd.Config) {
	n.t.Helper()
	var before []bfd.State
	for _, c := range want {
		before = append(before, s.state(c.Name))
	}
	n.router.Kill9()
	if err := n.router.Start(); err != nil {
		n.t.Fatal(err)
	}
	for i, c := range want {
		s.await(c.Name, "up again", func(st bfd.State) bool {
			return st.Status == bfd.Up && st.Downs > before[i].Downs && st.RemoteDiscriminator != before[i].RemoteDiscriminator
		})
	}
	n.theyAre("Up", want...)
}

// retime changes our timers: the session stays up.
func (n *network) retime(s *speaker, want []bfd.Config) {
	n.t.Helper()
	before := s.state(want[0].Name)
	for _, d := range []time.Duration{300 * time.Millisecond, 20 * time.Millisecond} {
		changed := append([]bfd.Config{}, want...)
		changed[0].DesiredMinTx, changed[0].RequiredMinRx = d, d
		s.set(changed...)
		agreed := max(d, theirInterval)
		s.await(want[0].Name, "retimed to "+d.String(), func(st bfd.State) bool {
			return st.TxInterval == agreed && st.RxInterval == agreed && st.DetectTime == patience*agreed
		})
		n.theirs(want[0], "retimed to "+d.String(), func(x lab.BFDSession) bool {
			if n.router.Kind == "frr" {
				return x.State == "Up" && x.RemoteTx == d && x.RemoteRx == d
			}
			return x.State == "Up" && x.Interval == agreed
		})
	}
	if after := s.state(want[0].Name); after.Status != bfd.Up || after.Ups != before.Ups || !after.Since.Equal(before.Since) {
		n.t.Errorf("new timers disturbed the session: %+v, before %+v", after, before)
	}
}

// remove ends the sessions in order.
func (n *network) remove(s *speaker, want []bfd.Config) {
	n.t.Helper()
	s.set(want[1:]...)
	n.theirs(want[0], "down by us", func(x lab.BFDSession) bool {
		return x.State == "Down" && (n.router.Kind != "frr" || x.RemoteDiag == "administratively down")
	})
	if len(s.State()) != len(want)-1 {
		n.t.Errorf("%d sessions are left of %d", len(s.State()), len(want))
	}
}
