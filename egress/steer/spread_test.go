package steer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestPodsKeepGateways goes through random times of a node: pods and gateways come and
// go, fail and drain, the agent restarts. As long as the gateways of a pod can be used it
// keeps them; what is left of a set stays; both addresses of a pod have the same; and a
// new agent, which has asked nobody yet, changes nothing.
func TestPodsKeepGateways(t *testing.T) {
	for seed := range uint64(25) {
		g := rand.New(rand.NewPCG(seed, 3))
		w := newWorld(t)
		bound, pods := 1+g.IntN(3), map[int]bool{}
		var before map[netip.Addr][]string
		for step := range 12 {
			cfg, health := bounded(0, bound, 5)
			for range 10 {
				pods[g.IntN(60)] = g.IntN(3) > 0
			}
			for i, there := range pods {
				if there {
					cfg.Clients = append(cfg.Clients, podAddresses(i)...)
				}
			}
			for i := range cfg.Gateways {
				switch g.IntN(6) {
				case 0:
					health[cfg.Gateways[i].ID] = Down
				case 1:
					cfg.Gateways[i].Draining = true
				}
			}
			gone := g.IntN(5)
			cfg.Gateways = slices.Delete(cfg.Gateways, gone, gone+g.IntN(2)) // maybe
			var left []string
			for _, gw := range cfg.Gateways {
				left = append(left, gw.ID)
			}
			cfg.Policies[0].Rules[0].Gateways, cfg.Policies[0].Rules[1].Gateways = left, left
			if g.IntN(3) == 0 {
				w.restart()
			}
			w.settle(cfg, health)
			after := gatewaysOf(w.agent.prev)
			checkKept(t, fmt.Sprintf("seed %d step %d", seed, step), w.agent.prev, before, after, bound)
			checkPods(t, after, cfg)
			if len(w.agent.prev.Problems) > 0 {
				t.Fatalf("seed %d: %v", seed, w.agent.prev.Problems)
			}
			before = after

			w.restart()
			w.kernel.Applied()
			plans := len(w.filter.Plans())
			w.settle(cfg, nil)
			if n := len(w.filter.Plans()); n != plans {
				t.Fatalf("seed %d step %d: a new agent changes the filter:\n%s", seed, step, w.filter.Plans()[plans])
			}
			if steps := w.kernel.Applied(); len(steps) > 0 {
				t.Fatalf("seed %d step %d: a new agent changes %v", seed, step, steps)
			}
		}
	}
}

func checkKept(t *testing.T, when string, d *Desired, before, after map[netip.Addr][]string, bound int) {
	t.Helper()
	usable := map[string]bool{}
	n := 0
	for _, g := range d.Gateways {
		if usable[g.ID] = g.Usable; g.Usable {
			n++
		}
	}
	for a, set := range after {
		if len(set) != min(bound, n) {
			t.Fatalf("%s: %s has %v of %d usable gateways", when, a, set, n)
		}
		for _, id := range before[a] {
			if usable[id] && !slices.Contains(set, id) {
				t.Fatalf("%s: %s had %v and has %v, and %s can be used", when, a, before[a], set, id)
			}
		}
	}
}

// checkPods: a client with addresses of both families has one set.
func checkPods(t *testing.T, of map[netip.Addr][]string, cfg Config) {
	t.Helper()
	first := map[string]netip.Addr{}
	for _, c := range cfg.Clients {
		if a, ok := first[c.Pod]; ok && !slices.Equal(of[a], of[c.Address]) {
			t.Fatalf("pod %s: %s has %v, %s has %v", c.Pod, a, of[a], c.Address, of[c.Address])
		}
		first[c.Pod] = c.Address
	}
}

// TestSecondAddressFollows: an address that a pod gets later has the gateways of the
// first, which keeps them.
func TestSecondAddressFollows(t *testing.T) {
	w := newWorld(t)
	cfg, health := bounded(40, 2, 5)
	both := cfg.Clients
	cfg.Clients = nil
	for i, c := range both {
		if i%2 == i/2%2 { // of one pod the IPv4 address, of the next the IPv6 one
			cfg.Clients = append(cfg.Clients, c)
		}
	}
	w.settle(cfg, health)
	before := gatewaysOf(w.agent.prev)
	cfg.Clients = both
	w.settle(cfg, health)
	after := gatewaysOf(w.agent.prev)
	checkPods(t, after, cfg)
	checkKept(t, "with both addresses", w.agent.prev, before, after, 2)
	if len(before) != 40 || len(after) != 80 {
		t.Errorf("%d and %d addresses have gateways", len(before), len(after))
	}
}

// TestEditsKeepGateways: what an edit of a rule leaves possible stays.
func TestEditsKeepGateways(t *testing.T) {
	edit := func(change func(r *Rule)) func(*Config) {
		return func(cfg *Config) {
			for i := range cfg.Policies[0].Rules {
				change(&cfg.Policies[0].Rules[i])
			}
		}
	}
	for _, c := range []struct {
		name       string
		from, to   int // bound
		change     func(*Config)
		keep, have int // how many gateways of each pod
	}{
		{"nothing", 2, 2, func(*Config) {}, 2, 2},
		{"less", 3, 2, func(*Config) {}, 2, 2},
		{"more", 1, 3, func(*Config) {}, 1, 3},
		{"another selector", 2, 2, edit(func(r *Rule) { r.Target = "also red" }), 2, 2},
		{"no selector", 2, 2, edit(func(r *Rule) { r.Target = "" }), 2, 2},
		{"another policy's name", 2, 2, func(cfg *Config) {
			cfg.Policies[0].Name = "q"
			for i := range cfg.Clients {
				cfg.Clients[i].Policy = "q"
			}
		}, 2, 2},
		{"one gateway less", 2, 2, edit(func(r *Rule) { r.Gateways = r.Gateways[1:] }), 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			cfg, health := bounded(50, c.from, 5)
			w.settle(cfg, health)
			before := gatewaysOf(w.agent.prev)
			cfg, health = bounded(50, c.to, 5)
			c.change(&cfg)
			w.restart()
			w.settle(cfg, health)
			for a, set := range gatewaysOf(w.agent.prev) {
				kept := 0
				for _, id := range before[a] {
					if slices.Contains(set, id) {
						kept++
					}
				}
				if kept < c.keep || len(set) != c.have {
					t.Errorf("%s had %v and has %v", a, before[a], set)
				}
			}
		})
	}
}

// TestOneTargetTwoMeanings: rules of one target with different gateways are two choices.
func TestOneTargetTwoMeanings(t *testing.T) {
	cfg, health := bounded(10, 1, 4)
	cfg.Policies[0].Rules[1].Gateways = ids(4)[2:]
	d := Decide(cfg, Observed{Health: health})
	members := map[string][]string{}
	for _, s := range d.Sets {
		members["goto "+setName(&s)] = s.Members
	}
	for _, family := range []struct {
		ipv4         bool
		destinations string
		gateways     []string
	}{{true, "dst4_p", ids(4)}, {false, "dst6_p", ids(4)[2:]}} {
		for _, verdict := range d.Filter.Sets[family.destinations].Elements {
			of := map[string]bool{}
			for _, set := range d.Filter.Sets[chooseName(strings.TrimPrefix(verdict, "goto "+prefixSpread), family.ipv4)].Elements {
				of[members[set][0]] = true
			}
			if got := slices.Sorted(maps.Keys(of)); !slices.Equal(got, family.gateways) {
				t.Errorf("%s leads to %v, want %v", family.destinations, got, family.gateways)
			}
		}
	}
}
