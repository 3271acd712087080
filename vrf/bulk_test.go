package vrf_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egret-router/egret/vrf"
)

// manyRoutes is a plan for n routes, of which every 7th has a next hop that does not
// exist, every 11th is there already, and every 13th needs the one before it.
func manyRoutes(n int, hop vrf.NextHopID) (p vrf.Plan) {
	for i := range n {
		r := vrf.Route{Table: 5000, Prefix: prefix(fmt.Sprintf("20.%d.%d.0/24", i/256, i%256)), Metric: 20, Type: vrf.Unicast, NextHop: hop}
		op := vrf.Op{Network: "red"}
		switch {
		case i%7 == 6:
			r.NextHop = 0x20000009
		case i%11 == 10:
			r.Prefix = prefix("20.0.0.0/24")
		}
		if i%13 == 12 {
			op.Needs = []int{i - 1}
		}
		op.Action = vrf.PutRoute{Route: r}
		p.Ops = append(p.Ops, op)
	}
	return p
}

// TestKernelBulk: routes that are sent together fail on their own, take those along
// that need them, and nobody else.
func TestKernelBulk(t *testing.T) {
	r := newRig(t)
	black := hop(vrf.NextHop{Blackhole: true})
	r.apply(vrf.PutNextHop{NextHop: black})
	n := 5*vrf.MaxBulk + 3
	plan := manyRoutes(n, black.ID)
	for i := range n { // deletions of what is there and of what is not
		del := plan.Ops[i].Action.(vrf.PutRoute).Route
		if i%2 == 0 {
			plan.Ops = append(plan.Ops, vrf.Op{Action: vrf.DeleteRoute{Route: del}, Needs: []int{i}})
		}
	}
	real, fake := r.real.Apply(t.Context(), plan), r.fake.Apply(t.Context(), plan)
	if real.Applied != fake.Applied || len(real.Errors) != len(fake.Errors) || real.Applied+len(real.Errors) != len(plan.Ops) {
		t.Fatalf("%d applied, %d failed; fake: %d, %d", real.Applied, len(real.Errors), fake.Applied, len(fake.Errors))
	}
	kinds := map[string]int{}
	for i, e := range real.Errors {
		f := fake.Errors[i]
		if e.Op.Action != f.Op.Action {
			t.Fatalf("error %d is of %q, fake of %q", i, e.Op, f.Op)
		}
		for name, kind := range map[string]error{"skipped": vrf.ErrSkipped, "exists": unix.EEXIST, "invalid": unix.EINVAL} {
			if errors.Is(e, kind) {
				kinds[name]++
				if !errors.Is(f, kind) {
					t.Errorf("%v, fake %v", e, f)
				}
			}
		}
	}
	if len(kinds) != 3 || !strings.Contains(real.Err().Error(), "Nexthop id does not exist") {
		t.Errorf("errors of kinds %v: %v", kinds, real.Err())
	}
	r.step = "bulk"
	r.compare()
}

// TestOneMessage: however many routes use a group, a change of its members is one
// request, and no other follows.
func TestOneMessage(t *testing.T) {
	r := newRig(t)
	must(t, r.gw.Sysctl("net.ipv4.nexthop_compat_mode", "0"))
	want := routing("192.0.2.1")
	for i := range 5000 {
		want.Routes = append(want.Routes, vrf.Route{Table: 5000, Prefix: prefix(fmt.Sprintf("20.%d.%d.0/24", i/256, i%256)),
			Metric: 20, Type: vrf.Unicast, NextHop: want.Groups[0].ID, Learned: true})
	}
	must(t, r.real.Apply(t.Context(), vrf.Diff(snapshot(t, r.real), want)).Err())
	have := snapshot(t, r.real)
	want.Groups[0].Members = want.Groups[0].Members[:1]
	plan := vrf.Diff(have, want)
	before := r.real.Requests()
	must(t, r.real.Apply(t.Context(), plan).Err())
	if n := r.real.Requests() - before; n != 1 {
		t.Errorf("%d requests:\n%s", n, plan)
	}
	after, ok := plan.ApplyTo(have)
	if diff := sameSnapshot(snapshot(t, r.real), after); !ok || diff != "" {
		t.Errorf("followed %t: -kernel +followed:\n%s", ok, diff)
	}
	if again := vrf.Diff(after, want); !again.Empty() {
		t.Errorf("left:\n%s", again)
	}
}
