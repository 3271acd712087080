package steer

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/flows/flowstest"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/nat/nattest"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// node is a node with two pods, of which one has a policy, and gateways a to c.
func node() Config {
	return Config{
		Tunnel: Tunnel{Device: "egret-vx", Loop: "egret-out", Local: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}, VNI: 4097},
		Inside: []netip.Prefix{prefix("10.244.0.0/16"), prefix("192.0.2.0/24"), prefix("fd00:244::/32")},
		Local:  []netip.Prefix{prefix("10.244.1.0/24"), prefix("fd00:244:1::/64")},
		Clients: []Client{{Address: addr("10.244.1.2"), Policy: "p"}, {Address: addr("fd00:244:1::2"), Policy: "p"},
			{Address: addr("10.244.1.3")}, {Address: addr("10.244.1.4"), Blocked: true}},
		Policies: []Policy{{Name: "p", Rules: []Rule{
			{Destination: prefix("0.0.0.0/0"), Gateways: []string{"a", "b", "c"}}, {Destination: prefix("::/0"), Gateways: []string{"a", "b", "c"}},
			{Destination: prefix("20.0.0.0/8"), Skip: true}}}},
		Gateways: []Gateway{gateway("a", 11), gateway("b", 12), gateway("c", 13)},
	}
}

func gateway(id string, host int) Gateway {
	return Gateway{ID: id, Endpoints: []netip.Addr{addr(fmt.Sprintf("192.0.2.%d", host)), addr(fmt.Sprintf("2001:db8::%x", host))}}
}

func ready(ids ...string) map[string]Health {
	out := map[string]Health{}
	for _, id := range ids {
		out[id] = Ready
	}
	return out
}

// world is a node in memory.
type world struct {
	t      *testing.T
	kernel *vrftest.Kernel
	filter *nattest.Fake
	flows  *flowstest.Fake
	agent  *Agent
}

type noSysctls struct{}

func (noSysctls) Set(context.Context, []sysctl.Setting) ([]sysctl.Change, error) { return nil, nil }

func newWorld(t *testing.T) *world {
	w := &world{t: t, filter: nattest.New(), flows: flowstest.New(),
		kernel: vrftest.New(Owner(), vrf.Link{Name: "eth0", Kind: "veth", Up: true, Carrier: true, MTU: 1500,
			Addresses: []vrf.Address{{Prefix: prefix("192.0.2.1/24")}, {Prefix: prefix("2001:db8::1/64")}}})}
	w.restart()
	return w
}

// restart makes a new agent, which knows nothing but the kernel.
func (w *world) restart() {
	w.agent = New(slog.New(slog.DiscardHandler), Edges{Kernel: w.kernel, Filter: w.filter, Sysctls: noSysctls{}, Flows: w.flows})
}

// settle runs rounds until nothing changes any more.
func (w *world) settle(cfg Config, health map[string]Health) {
	w.t.Helper()
	w.agent.SetConfig(cfg)
	w.agent.SetHealth(health)
	for range 5 {
		w.kernel.Applied()
		plans := len(w.filter.Plans())
		w.agent.dirty()
		if err := w.agent.Round(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if len(w.kernel.Applied()) == 0 && len(w.filter.Plans()) == plans {
			return
		}
	}
	w.t.Fatal("rounds do not settle")
}

func (w *world) snapshot() vrf.Snapshot {
	s, err := w.kernel.Snapshot(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// set finds the active set of exactly these gateways.
func (w *world) set(members ...string) Set {
	w.t.Helper()
	for _, s := range w.agent.prev.Sets {
		if s.Active && slices.Equal(s.Members, members) {
			return s
		}
	}
	w.t.Fatalf("no active set of %v in %+v", members, w.agent.prev.Sets)
	return Set{}
}

func (w *world) live(number uint16) []string {
	for _, s := range w.agent.prev.Sets {
		if s.Number == number {
			return s.Live
		}
	}
	return nil
}

// TestLossAndReturn is the life of a set: a lost gateway leaves it in one message for
// each group; when it returns, new flows get a set with it, and the old set stays as it
// is until its flows have ended. A new agent finds all of it in the kernel.
func TestLossAndReturn(t *testing.T) {
	w := newWorld(t)
	w.settle(node(), ready("a", "b", "c"))
	first := w.set("a", "b", "c")
	w.flows.Add(flows.Flow{Mark: first.Mark, Src: addr("10.244.1.2"), SrcPort: 1})

	w.kernel.Applied()
	lost := ready("a", "c")
	lost["b"] = Down
	w.agent.SetHealth(lost)
	w.agent.loseGateways(t.Context(), lost)
	if steps := w.kernel.Applied(); len(steps) != 2 {
		t.Fatalf("the loss took %d steps, want one for each family: %v", len(steps), steps)
	}
	w.settle(node(), lost)
	second := w.set("a", "c")
	if got := w.live(first.Number); !slices.Equal(got, []string{"a", "c"}) || second.Number == first.Number {
		t.Fatalf("the old set has %v, new flows go to %d, old ones to %d", got, second.Number, first.Number)
	}
	w.settle(node(), ready("a", "b", "c"))
	third := w.set("a", "b", "c")
	if third.Number == first.Number || !slices.Equal(w.live(first.Number), []string{"a", "c"}) {
		t.Fatalf("the returning gateway takes flows of set %d, which has %v", first.Number, w.live(first.Number))
	}
	before := w.agent.prev
	w.restart()
	w.kernel.Applied()
	plans := len(w.filter.Plans())
	w.settle(node(), nil) // nothing has answered yet
	if len(w.filter.Plans()) != plans || !reflect.DeepEqual(before.Kernel, w.agent.prev.Kernel) {
		t.Errorf("a new agent changes something:\n%v", w.filter.Plans()[plans:])
	}
	w.settle(node(), ready("a", "b", "c"))
	w.agent.Sweep(t.Context())
	w.settle(node(), ready("a", "b", "c"))
	if w.live(first.Number) == nil || w.live(second.Number) != nil {
		t.Errorf("a set with flows must stay, one without go: %+v", w.agent.prev.Sets)
	}
	if _, err := w.flows.Sweep(t.Context(), first.Mark, first.Mark, func(flows.Flow) bool { return true }); err != nil {
		t.Fatal(err)
	}
	w.agent.Sweep(t.Context())
	w.settle(node(), ready("a", "b", "c"))
	if len(w.agent.prev.Sets) != 1 {
		t.Errorf("sets without flows are left: %+v", w.agent.prev.Sets)
	}
}

// TestNothingUsable: all gateways lost is a closed door, for old flows and new ones,
// and the same set is used again when one returns.
func TestNothingUsable(t *testing.T) {
	w := newWorld(t)
	cfg := node()
	cfg.Policies[0].Rules[0].Gateways = []string{"a"}
	cfg.Policies[0].Rules[1].Gateways = []string{"a"}
	w.settle(cfg, ready("a"))
	first := w.set("a")
	w.settle(cfg, map[string]Health{"a": Down})
	for _, g := range w.snapshot().Config.Groups {
		for _, h := range w.snapshot().Config.NextHops {
			if h.ID == g.Members[0].ID && !h.Blackhole {
				t.Errorf("group %s leads to %s", g, h)
			}
		}
	}
	rules := w.filter.Ruleset()
	leads := rules.Sets["dst4_p"].Elements
	for key, to := range leads {
		if to != "goto nothing" {
			t.Errorf("%s leads to %q", key, to)
		}
	}
	if len(leads) == 0 || len(rules.Sets[mapTakes].Elements) != 0 {
		t.Errorf("%d destinations, %d sets are kept by flows", len(leads), len(rules.Sets[mapTakes].Elements))
	}
	w.settle(cfg, ready("a"))
	if again := w.set("a"); again.Number != first.Number {
		t.Errorf("number %d became %d", first.Number, again.Number)
	}
}

// TestDraining: a draining gateway keeps its flows and gets no new ones, and goes back to
// its set if it was only a threat.
func TestDraining(t *testing.T) {
	w := newWorld(t)
	w.settle(node(), ready("a", "b", "c"))
	first := w.set("a", "b", "c")
	cfg := node()
	cfg.Gateways[1].Draining = true
	w.settle(cfg, ready("a", "b", "c"))
	if w.set("a", "c"); !slices.Equal(w.live(first.Number), []string{"a", "b", "c"}) {
		t.Errorf("the old set has %v", w.live(first.Number))
	}
	w.settle(node(), ready("a", "b", "c"))
	if w.set("a", "b", "c").Number != first.Number {
		t.Error("another number for the same gateways")
	}
	if w.agent.Status().Sets[0].Flows != -1 || len(w.agent.Status().Gateways) != 3 {
		t.Errorf("status %+v", w.agent.Status())
	}
}

// random is a Config and what is known of its gateways.
func random(g *rand.Rand) (Config, map[string]Health) {
	cfg := node()
	cfg.Clients, cfg.Policies, cfg.Gateways = nil, nil, nil
	health := map[string]Health{}
	var ids []string
	for i := range 1 + g.IntN(5) {
		gw := gateway(fmt.Sprintf("g%d", i), 11+i%4)
		gw.Here, gw.Draining = g.IntN(6) == 0, g.IntN(6) == 0
		if g.IntN(8) == 0 {
			gw.Endpoints = gw.Endpoints[1:]
		}
		cfg.Gateways, ids = append(cfg.Gateways, gw), append(ids, gw.ID)
		health[gw.ID] = Health(g.IntN(4))
	}
	for i := range 1 + g.IntN(4) {
		p := Policy{Name: fmt.Sprintf("p%d", i)}
		for _, dst := range []string{"0.0.0.0/0", "::/0", "20.0.0.0/8", "20.1.0.0/16", "2001:db8:20::/48"} {
			if g.IntN(3) == 0 {
				continue
			}
			r := Rule{Destination: prefix(dst), Skip: g.IntN(5) == 0, PreferLocal: g.IntN(4) == 0, MaxNextHops: g.IntN(4)}
			for _, id := range ids {
				if g.IntN(3) > 0 {
					r.Gateways = append(r.Gateways, id)
				}
			}
			p.Rules = append(p.Rules, r)
		}
		cfg.Policies = append(cfg.Policies, p)
	}
	for i := range g.IntN(12) {
		c := Client{Address: netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i)}), Blocked: g.IntN(6) == 0}
		if g.IntN(4) > 0 {
			c.Policy = fmt.Sprintf("p%d", g.IntN(5)) // which may not be there
		}
		cfg.Clients = append(cfg.Clients, c)
	}
	return cfg, health
}

// TestChurn goes through random states one after the other: each is reached and stays,
// agrees with another agent's view, and no set gets a gateway that it has lost.
func TestChurn(t *testing.T) {
	for seed := range uint64(30) {
		g := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t)
		for step := range 8 {
			before := Sets(w.snapshot())
			cfg, health := random(g)
			w.settle(cfg, health)
			for _, k := range Sets(w.snapshot()) {
				i := slices.IndexFunc(before, func(o KernelSet) bool { return o.Number == k.Number })
				if i < 0 || len(before[i].Hops) == 0 || !slices.Equal(before[i].Markers, k.Markers) {
					continue
				}
				for _, h := range k.Hops {
					if !slices.Contains(before[i].Hops, h) {
						t.Fatalf("seed %d step %d: set %d got %s", seed, step, k.Number, h)
					}
				}
			}
			checkActive(t, w.agent.prev, health)
			shuffled := cfg
			shuffled.Clients, shuffled.Policies, shuffled.Gateways = slices.Clone(cfg.Clients), slices.Clone(cfg.Policies), slices.Clone(cfg.Gateways)
			g.Shuffle(len(shuffled.Clients), reflect.Swapper(shuffled.Clients))
			g.Shuffle(len(shuffled.Policies), reflect.Swapper(shuffled.Policies))
			g.Shuffle(len(shuffled.Gateways), reflect.Swapper(shuffled.Gateways))
			if g.IntN(2) == 0 {
				w.restart()
			}
			plans := len(w.filter.Plans())
			w.kernel.Applied()
			w.settle(shuffled, health)
			if len(w.filter.Plans()) != plans {
				t.Fatalf("seed %d step %d: another order, another filter:\n%s", seed, step, w.filter.Plans()[plans])
			}
		}
		if err := Teardown(t.Context(), w.agent.edges); err != nil {
			t.Fatal(err)
		}
		left := w.snapshot()
		if len(left.Links) != 2 || len(left.Config.NextHops)+len(left.Config.Routes)+len(left.Config.Rules) > 0 || w.filter.Ruleset().Exists {
			t.Fatalf("seed %d: left: %+v", seed, left)
		}
	}
}

// checkActive: active sets have usable gateways only, and every verdict has its chain.
func checkActive(t *testing.T, d *Desired, health map[string]Health) {
	t.Helper()
	usable := map[string]bool{}
	for _, g := range d.Gateways {
		usable[g.ID] = g.Usable
		if g.Usable && (g.Draining || health[g.ID] == Down || health[g.ID] == Draining) {
			t.Fatalf("%s is used: %+v", g.ID, g)
		}
	}
	for _, s := range d.Sets {
		for _, m := range s.Members {
			if s.Active && !usable[m] {
				t.Fatalf("set %d takes new flows for %q", s.Number, m)
			}
		}
	}
	for name, s := range d.Filter.Sets {
		for key, value := range s.Elements {
			if chain, ok := strings.CutPrefix(value, "goto "); ok {
				if _, there := d.Filter.Chains[chain]; !there {
					t.Fatalf("%s of %s leads to %s, which is not there", key, name, chain)
				}
			}
		}
	}
}

// TestEveryStepFails lets each step of a change fail once: the next rounds mend it, and
// at no time is there a table without the rules that block.
func TestEveryStepFails(t *testing.T) {
	for n := 1; n < 60; n++ {
		w := newWorld(t)
		w.kernel.FailNth(n, fmt.Errorf("injected"))
		if n%3 == 0 {
			w.filter.Fail(nattest.Apply, 1+n%2, nil)
		}
		w.agent.SetConfig(node())
		w.agent.SetHealth(ready("a", "b", "c"))
		for range 2 {
			_ = w.agent.Round(t.Context()) // fails or not
			w.agent.dirty()
		}
		w.kernel.FailIf(nil)
		w.settle(node(), ready("a", "b", "c"))
		if len(Sets(w.snapshot())) != 1 {
			t.Fatalf("step %d: %+v", n, Sets(w.snapshot()))
		}
	}
}

// TestOnePodIsFewOperations: a pod that comes costs elements, however many there are.
func TestOnePodIsFewOperations(t *testing.T) {
	w := newWorld(t)
	cfg := node()
	cfg.Policies[0].Rules[0].MaxNextHops = 1
	for i := range 200 {
		cfg.Clients = append(cfg.Clients, Client{Address: netip.AddrFrom4([4]byte{10, 244, 1, byte(10 + i)}), Policy: "p"})
	}
	w.settle(cfg, ready("a", "b", "c"))
	plans := len(w.filter.Plans())
	cfg.Clients = append(slices.Clone(cfg.Clients), Client{Address: addr("10.244.1.250"), Policy: "p"})
	w.kernel.Applied()
	w.agent.SetConfig(cfg)
	if err := w.agent.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	ops := 0
	for _, p := range w.filter.Plans()[plans:] {
		ops += len(p.Ops)
	}
	if steps := w.kernel.Applied(); len(steps) != 0 || ops > 6 {
		t.Errorf("%d steps of routing, %d operations of the filter", len(steps), ops)
	}
}

var _ Filter = (*nat.Table)(nil)
var _ Kernel = (*vrf.Kernel)(nil)
var _ Flows = (*flows.Table)(nil)
var _ Sysctls = (*sysctl.Store)(nil)
