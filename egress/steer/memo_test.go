package steer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/egret-router/egret/egress/nat"
)

// crowd is a node with so many pods, in one large prefix, and policies over 50 gateways.
func crowd(pods, policies int) (Config, map[string]Health) {
	cfg, health := large()
	cfg.Local = []netip.Prefix{prefix("10.128.0.0/16"), prefix("fd00:128::/64")}
	cfg.Policies, cfg.Clients = cfg.Policies[:policies], nil
	for i := range pods {
		policy := fmt.Sprintf("p%03d", i%policies)
		// One in three is free, so that none adjoins another with the same policy.
		cfg.Clients = append(cfg.Clients, Client{Address: crowdAddress(3*i + 1), Policy: policy},
			Client{Address: netip.AddrFrom16([16]byte{0xfd, 0, 1, 0x28, 14: byte((3*i + 1) >> 8), 15: byte(3*i + 1)}), Policy: policy})
	}
	return cfg, health
}

func crowdAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 128, byte(i >> 8), byte(i)}) }

// TestOnePodIsNoRewrite: what a pod costs that comes, gets another policy and goes does
// not depend on how many others there are, in operations and in bytes; no
// routing is touched, and nothing is read again.
func TestOnePodIsNoRewrite(t *testing.T) {
	type cost struct{ steps, plans, ops, bytes, snapshots int }
	costs := map[string][]cost{}
	for _, size := range []struct{ pods, policies int }{{20, 10}, {5000, 500}} {
		w := newWorld(t)
		cfg, health := crowd(size.pods, size.policies)
		w.settle(cfg, health)
		without, at := cfg.Clients, crowdAddress(3*10+2) // beside the tenth pod
		for _, event := range []struct {
			name    string
			clients []Client
		}{
			{"comes", append(slices.Clone(without), Client{Address: at, Policy: "p001"})},
			{"annotated", append(slices.Clone(without), Client{Address: at, Policy: "p002"})},
			{"goes", without},
		} {
			w.kernel.Applied()
			plans, snapshots := len(w.filter.Plans()), w.filter.Calls("Snapshot")
			cfg.Clients = event.clients
			w.agent.SetConfig(cfg)
			if err := w.agent.Round(t.Context()); err != nil {
				t.Fatal(err)
			}
			c := cost{steps: len(w.kernel.Applied()), snapshots: w.filter.Calls("Snapshot") - snapshots}
			for _, p := range w.filter.Plans()[plans:] {
				c.plans, c.ops, c.bytes = c.plans+1, c.ops+len(p.Ops), c.bytes+len(p.String())
			}
			costs[event.name] = append(costs[event.name], c)
		}
	}
	for event, c := range costs {
		few, many := c[0], c[1]
		if few.steps+many.steps > 0 || few.snapshots+many.snapshots > 0 || many.plans != 1 || many.ops != few.ops || many.ops == 0 || many.ops > 8 ||
			many.bytes > few.bytes*5/4 {
			t.Errorf("%s: %+v among few, %+v among many", event, few, many)
		}
		t.Logf("%s: %+v among few, %+v among many", event, few, many)
	}
}

// TestMemo: what is decided does not depend on what was decided before.
func TestMemo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	cfg, health := crowd(60, 20)
	var memo Memo
	obs := Observed{Health: health}
	for step := range 400 {
		cfg.Clients, cfg.Policies = slices.Clone(cfg.Clients), slices.Clone(cfg.Policies)
		switch i := random.IntN(len(cfg.Clients)); random.IntN(10) {
		case 0:
			cfg.Clients[i].Blocked = !cfg.Clients[i].Blocked
		case 1:
			cfg.Clients[i].Policy = fmt.Sprintf("p%03d", random.IntN(22)) // some are not there
		case 2:
			cfg.Clients = slices.Delete(cfg.Clients, i, i+1)
		case 3:
			cfg.Clients = append(cfg.Clients, Client{Address: crowdAddress(random.IntN(1 << 16)), Policy: "p003"})
		case 4:
			p := &cfg.Policies[random.IntN(len(cfg.Policies))]
			p.Rules = slices.Clone(p.Rules)
			p.Rules[random.IntN(len(p.Rules))].MaxNextHops = random.IntN(4)
		case 5:
			p := &cfg.Policies[random.IntN(len(cfg.Policies))]
			p.Rules = slices.Clone(p.Rules)
			p.Rules[2].Destination = netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(random.IntN(256)), 0, 0}), 16)
		case 6:
			obs.Health = ready()
			for id := range health {
				obs.Health[id] = Health(random.IntN(4))
			}
		case 7:
			cfg.Tunnel.MTU = 1400 + random.IntN(2)
		case 8:
			cfg.MarkMask = []uint32{0, 0x40000fff, 0x307f}[random.IntN(3)]
		case 9:
			obs.Former = []uint32{0x40000000, 0x80000000}[:random.IntN(3)]
		}
		got := memo.Decide(cfg, obs)
		want := Decide(cfg, obs)
		if plan := nat.Diff(got.Filter, want.Filter); !plan.Empty() || !reflect.DeepEqual(got.Kernel, want.Kernel) || !reflect.DeepEqual(got.Sets, want.Sets) {
			t.Fatalf("step %d: with a memo it is\n%+v\nwithout\n%+v\nand of the filter differs\n%s", step, got.Kernel, want.Kernel, plan)
		}
		obs.Sets, obs.Choices = kernelSetsOf(got), Choices(got.Filter)
	}
}

// kernelSetsOf are the sets as the kernel has them once they are in place.
func kernelSetsOf(d Desired) []KernelSet {
	var out []KernelSet
	for _, s := range d.Sets {
		if len(out) < 300 { // old ones would be ever more
			out = append(out, KernelSet{Number: s.Number, Markers: s.markers, Hops: s.hops})
		}
	}
	return out
}
