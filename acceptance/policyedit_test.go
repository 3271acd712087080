package acceptance

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
)

// Clients of two policies that differ in what an edit does to their flows, and
// the last one, bound to a policy that does not exist.
const (
	keepClients = `[10.244.16.0/29, "fd00:244:10::/125"]`
	cutClients  = `[10.244.16.8/29, "fd00:244:10::8/125"]`
	keepClient  = 1
	cutClient   = 9
	editClients = 15
	secondPool4 = "198.51.100.128/28"
	secondPool6 = "2001:db8:51:2::/124"
	secondPool  = "\n  - {name: red-pool2, network: red, prefixes: [" + secondPool4 + `, "` + secondPool6 + `"]}`
	unchangedBy = "network: red, pool: red-pool"
)

// edited has both policies send traffic to the server elsewhere; what goes to
// its other address stays with red by the first two routers.
func edited(rules string) fanOptions {
	others := fanRules(lab.FanOther4, lab.FanOther6, unchangedBy, 0, 1)
	return fanOptions{pools: fanPools + secondPool, policies: fmt.Sprintf(`
  - {name: keep, clients: %s, rules: [%s, %s]}
  - {name: cut, onChange: cut, clients: %s, rules: [%s, %s]}`, keepClients, rules, others, cutClients, rules, others)}
}

func toServer(target string, routers ...int) string {
	if len(routers) > 0 {
		return fanRules(lab.Server4, lab.Server6, target, routers...)
	}
	return fmt.Sprintf(`{destination: %s, %s}, {destination: "%s", %s}`, lab.Server4, target, lab.Server6, target)
}

// place is where flows end up.
type place struct {
	server  string
	pools   []netip.Prefix
	routers []int // nil: none of the four
}

var (
	redPlace = place{"red", prefixes(fanPool4, fanPool6), []int{0, 1}}
	redRules = toServer("network: red, pool: red-pool", 0, 1)
)

// check wants flows to have been answered at the place.
func (p place) check(f *fan, flows []*flow) error {
	for _, x := range flows {
		if x.server != p.server {
			return fmt.Errorf("%s was answered by %s, want %s", x, x.server, p.server)
		}
		in := false
		for _, pool := range p.pools {
			in = in || pool.Contains(x.seen)
		}
		if !in {
			return fmt.Errorf("%s was seen as %s, want one of %v", x, x.seen, p.pools)
		}
	}
	if p.routers == nil {
		return nil
	}
	carrier, err := f.routers.of(f.t.Context(), flows)
	if err != nil {
		return err
	}
	for _, x := range flows {
		ok := false
		for _, r := range p.routers {
			ok = ok || carrier[x.key] == r
		}
		if !ok {
			return fmt.Errorf("%s went by router %d, want one of %v", x, carrier[x.key], p.routers)
		}
	}
	return nil
}

// teamFlows are established flows of one client.
type teamFlows struct{ edited, others []*flow }

func (f *fan) teamFlows(client int) teamFlows {
	f.t.Helper()
	var out teamFlows
	for _, family := range lab.Families() {
		other := lab.FanOther4
		if family == lab.IPv6 {
			other = lab.FanOther6
		}
		for _, tcp := range []bool{false, false, true} {
			out.edited = append(out.edited, f.flow(family, client, tcp, serverOf(family)))
			out.others = append(out.others, f.flow(family, client, tcp, other))
		}
	}
	return out
}

func (t teamFlows) all() []*flow { return append(append([]*flow(nil), t.edited...), t.others...) }

// TestPolicyEdit edits policies under established, offloaded flows.
func TestPolicyEdit(t *testing.T) {
	f := newFan(t, editClients)
	f.boot(edited(redRules))
	f.usable(0, 1)
	for _, tt := range []struct {
		name, rules string
		to          place
	}{
		{"another network", toServer("network: blue, pool: blue-pool"), place{"blue", prefixes("203.0.113.0/28", "2001:db8:113::/124"), nil}},
		{"another pool", toServer("network: red, pool: red-pool2", 0, 1), place{"red", prefixes(secondPool4, secondPool6), []int{0, 1}}},
		{"other next hops", toServer("network: red, pool: red-pool", 2, 3), place{"red", redPlace.pools, []int{2, 3}}},
	} {
		t.Run(tt.name, func(t *testing.T) { f.editTarget(t, tt.rules, tt.to) })
	}
	t.Run("drop", func(t *testing.T) { f.editToStop(t, "action: drop") })
	t.Run("reject", func(t *testing.T) { f.editToStop(t, "action: reject") })
	t.Run("removed pool", func(t *testing.T) { f.removedPool(t) })
}

// establish opens flows of both teams from the standing rules, until all are
// offloaded.
func (f *fan) establish(t *testing.T, at place) (keep, cut teamFlows) {
	t.Helper()
	f.routers.forget()
	keep, cut = f.teamFlows(keepClient), f.teamFlows(cutClient)
	all := append(keep.all(), cut.all()...)
	for range 2 {
		if err := talk(all); err != nil {
			t.Fatal(err)
		}
	}
	if err := at.check(f, append(keep.edited, cut.edited...)); err != nil {
		t.Fatal(err)
	}
	if n := f.offloaded(all); n != len(all) {
		t.Errorf("%d of %d flows are offloaded", n, len(all))
	}
	return keep, cut
}

// same wants flows to have the conntrack entries that they had.
func (f *fan) same(t *testing.T, what string, flows []*flow, before map[flowKey]entry) {
	t.Helper()
	now := f.entries()
	for _, x := range flows {
		if b, n := before[x.key], now[x.key]; b.id == "" || b.id != n.id {
			t.Errorf("%s: the conntrack entry of %s is %q, was %q", what, x, n.id, b.id)
		}
	}
}

// ended waits until no flow has the entry that it had.
func (f *fan) ended(t *testing.T, flows []*flow, before map[flowKey]entry) {
	t.Helper()
	lab.Eventually(t, patience, "the end of the flows", func() error {
		ids := map[string]bool{}
		for _, e := range f.entries() {
			ids[e.id] = true
		}
		for _, x := range flows {
			if ids[before[x.key].id] {
				return fmt.Errorf("%s has its entry still", x)
			}
		}
		return nil
	})
}

func (f *fan) editTarget(t *testing.T, rules string, to place) {
	keep, cut := f.establish(t, redPlace)
	before := f.entries()
	f.reload(t, edited(rules).config())
	f.ended(t, cut.edited, before)
	f.same(t, "of the policy that keeps", keep.all(), before)
	f.same(t, "of the policy that cuts, which the edit leaves alone", cut.others, before)
	f.routers.forget()
	if err := talk(append(keep.all(), cut.others...)); err != nil {
		t.Error(err)
	}
	if err := redPlace.check(f, append(keep.all(), cut.others...)); err != nil {
		t.Errorf("established flows moved: %v", err)
	}
	f.same(t, "after more traffic", append(keep.all(), cut.others...), before)
	f.routers.forget()
	var moved []*flow
	for _, x := range cut.edited {
		if !x.key.tcp {
			moved = append(moved, x)
			continue
		}
		if err := x.exchange(patience); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("a connection that was cut: %v, want a reset", err)
		}
	}
	for _, client := range []int{keepClient, cutClient} {
		moved = append(moved, f.teamFlows(client).edited...)
	}
	if err := talk(moved); err != nil {
		t.Fatal(err)
	}
	if err := to.check(f, moved); err != nil {
		t.Errorf("new flows: %v", err)
	}
	f.reload(t, edited(redRules).config())
}

// editToStop: rules that stop traffic end what is established, also of the
// policy that keeps flows over other edits, and also what is offloaded.
func (f *fan) editToStop(t *testing.T, action string) {
	keep, cut := f.establish(t, redPlace)
	before := f.entries()
	stopped, others := append(keep.edited, cut.edited...), append(keep.others, cut.others...)
	f.reload(t, edited(toServer(action)).config())
	f.ended(t, stopped, before)
	f.routers.forget()
	for _, x := range stopped {
		wait := patience
		if strings.HasSuffix(action, "drop") {
			wait = silence
		}
		err := x.exchange(wait)
		if err == nil || told(err) != strings.HasSuffix(action, "reject") {
			t.Errorf("%s: %s ended with %v", action, x, err)
		}
	}
	if err := talk(others); err != nil {
		t.Error(err)
	}
	f.same(t, "which the edit leaves alone", others, before)
	for _, x := range stopped {
		if n := f.routers.packets(x); n > 0 {
			t.Errorf("%s: %d packets of %s left", action, n, x)
		}
	}
	f.reload(t, edited(redRules).config())
}

// told says that an error is what a TCP reset or an ICMP unreachable becomes.
func told(err error) bool {
	for _, text := range []string{"refused", "reset", "no route to host", "permission denied"} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// removedPool: nothing is left of a pool that is gone.
func (f *fan) removedPool(t *testing.T) {
	second := edited(toServer("network: red, pool: red-pool2", 0, 1))
	f.reload(t, second.config())
	keep, cut := f.establish(t, place{"red", prefixes(secondPool4, secondPool6), []int{0, 1}})
	before := f.entries()
	without := edited(redRules)
	without.pools = fanPools
	f.reload(t, without.config())
	f.ended(t, append(keep.edited, cut.edited...), before)
	lab.Eventually(t, patience, "no entry with an address of the pool", func() error {
		for _, e := range f.entries() {
			for _, p := range prefixes(secondPool4, secondPool6) {
				if p.Contains(e.replyTo) {
					return errors.New(e.client.String() + " still is " + e.replyTo.String())
				}
			}
		}
		return nil
	})
	f.same(t, "of the other pool", append(keep.others, cut.others...), before)
}
