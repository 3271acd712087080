package steer

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// ids are those of n gateways.
func ids(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("egress/red@n%02d", i))
	}
	return out
}

// chosen has the gateways of clients; one that is not in it is new.
type chosen map[int][]string

// again makes the choice for clients that have had what is in c, and notes it there.
func (c chosen) again(usable []string, bound, turn int, clients []int) *choice {
	var had [][]string
	now := make([]int, len(clients))
	for i, client := range clients {
		now[i] = -1
		if set := c[client]; set != nil {
			now[i] = slices.IndexFunc(had, func(s []string) bool { return slices.Equal(s, set) })
			if now[i] < 0 {
				now[i], had = len(had), append(had, set)
			}
		}
	}
	made := choose(usable, bound, turn, had, now)
	for i, client := range clients {
		c[client] = made.members(made.of[i])
	}
	return made
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// farthest is how far the load of a gateway is from the mean, as a part of it.
func farthest(load map[string]int, gateways []string) float64 {
	sum, worst := 0, 0.0
	for _, n := range load {
		sum += n
	}
	mean := float64(sum) / float64(len(gateways))
	for _, id := range gateways {
		worst = max(worst, float64(load[id])/mean-1, 1-float64(load[id])/mean)
	}
	return worst
}

// TestEven: 300 pods load gateways alike, however many nodes they are on, each of which
// knows its own pods only. Where the pods lie evenly, the limit is a tenth of the
// mean; where they lie at random, what is left is chance, which a node cannot know.
func TestEven(t *testing.T) {
	const pods = 300
	random := rand.New(rand.NewPCG(3, 4))
	for _, shape := range []struct {
		name  string
		nodes func() map[int]int // pods by the node's turn
		limit float64
	}{
		{"1 node", func() map[int]int { return map[int]int{41: pods} }, .10},
		{"10 nodes", evenly(10, pods), .10},
		{"100 nodes", evenly(100, pods), .10},
		{"300 nodes", evenly(300, pods), .10},
		{"100 nodes, at random", func() map[int]int {
			out := map[int]int{}
			for range pods {
				out[random.IntN(100)]++
			}
			return out
		}, .25},
		{"100 nodes of 1000", func() map[int]int {
			out := map[int]int{}
			for _, turn := range random.Perm(1000)[:100] {
				out[turn] = pods / 100
			}
			return out
		}, .40},
	} {
		worst := 0.0
		for n := 3; n <= 10; n++ {
			for bound := 1; bound <= 3; bound++ {
				load := map[string]int{}
				for turn, here := range shape.nodes() {
					sets := chosen{}
					if made := sets.again(ids(n), bound, turn, upTo(here)); len(made.options) > n {
						t.Errorf("%s, bound %d, %d gateways: %d sets", shape.name, bound, n, len(made.options))
					}
					for _, set := range sets {
						if len(set) != min(bound, n) {
							t.Fatalf("%s, bound %d, %d gateways: set %v", shape.name, bound, n, set)
						}
						for _, id := range set {
							load[id]++
						}
					}
				}
				far := farthest(load, ids(n))
				if worst = max(worst, far); far > shape.limit {
					t.Errorf("%s, bound %d, %d gateways: %.0f %% from the mean: %v", shape.name, bound, n, 100*far, load)
				}
			}
		}
		t.Logf("%s: at most %.1f %% from the mean", shape.name, 100*worst)
	}
}

func evenly(nodes, pods int) func() map[int]int {
	return func() map[int]int {
		out := map[int]int{}
		for turn := range nodes {
			out[turn] = pods / nodes
		}
		return out
	}
}

// TestChooseSticks: through losses and returns a client has the same gateways as long as
// they can be used, keeps those that are left when one goes, and the sets stay few.
// When the clients have changed, the loads are even again.
func TestChooseSticks(t *testing.T) {
	for seed := range uint64(40) {
		g := rand.New(rand.NewPCG(seed, 11))
		all, bound := ids(2+g.IntN(9)), 1+g.IntN(3)
		sets, clients, next := chosen{}, upTo(300), 300
		change := func(n int) {
			for range n {
				i := g.IntN(len(clients))
				delete(sets, clients[i])
				clients[i] = next
				next++
			}
		}
		for range 40 {
			change(10)
			usable := slices.Clone(all)
			g.Shuffle(len(usable), func(i, j int) { usable[i], usable[j] = usable[j], usable[i] })
			usable = usable[:1+g.IntN(len(usable))]
			before := chosen{}
			for client, set := range sets {
				before[client] = set
			}
			made := sets.again(usable, bound, int(seed), clients)
			if len(made.options) > setsPerGateway*len(usable) {
				t.Fatalf("seed %d: %d sets of %d gateways", seed, len(made.options), len(usable))
			}
			full := len(made.options) == setsPerGateway*len(usable) // only then may one move for nothing
			for client, old := range before {
				kept := slices.DeleteFunc(slices.Clone(old), func(id string) bool { return !slices.Contains(usable, id) })
				for _, id := range kept {
					if !slices.Contains(sets[client], id) && !full {
						t.Fatalf("seed %d: client %d had %v, of which %v can be used, and has %v", seed, client, old, kept, sets[client])
					}
				}
			}
		}
		sets.again(all, bound, int(seed), clients)
		change(2000)
		made := sets.again(all, bound, int(seed), clients)
		load := map[string]int{}
		for i, n := range made.load {
			load[made.ring[i]] = n
		}
		if far := farthest(load, all); far > .10 {
			t.Errorf("seed %d: %.0f %% from the mean when all clients have changed: %v", seed, 100*far, load)
		}
	}
}

// TestFewSetsOfManyGateways: no history makes more than a few sets for each gateway, and
// what it costs is some clients of the rarest sets.
func TestFewSetsOfManyGateways(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 2))
	all, sets, clients := ids(20), chosen{}, upTo(3000)
	most := 0
	for range 60 {
		usable := slices.Clone(all)
		g.Shuffle(len(usable), func(i, j int) { usable[i], usable[j] = usable[j], usable[i] })
		usable = usable[:10+g.IntN(11)]
		made := sets.again(usable, 4, 0, clients)
		most = max(most, len(made.options))
		if len(made.options) > setsPerGateway*len(usable) {
			t.Fatalf("%d sets of %d gateways", len(made.options), len(usable))
		}
	}
	if most < 2*len(all) {
		t.Errorf("at most %d sets: the limit was not reached", most)
	}
}

// TestTooManySets: of sets that history has left, those of most clients stay, and the
// clients of the others keep most of their gateways.
func TestTooManySets(t *testing.T) {
	all, before := ids(10), chosen{}
	often := [][]string{{all[0], all[3], all[6]}, {all[1], all[5], all[8]}}
	for a := range all {
		for b := range a {
			for c := range b {
				before[len(before)] = []string{all[c], all[b], all[a]}
			}
		}
	}
	for range 3 {
		for _, set := range often {
			before[len(before)] = set
		}
	}
	after, left := maps.Clone(before), 0
	made := after.again(all, 3, 0, upTo(len(before)))
	if len(made.options) != setsPerGateway*len(all) {
		t.Errorf("%d sets", len(made.options))
	}
	for client, set := range after {
		kept := slices.DeleteFunc(slices.Clone(set), func(id string) bool { return !slices.Contains(before[client], id) })
		if len(set) != 3 || len(kept) < 2 || len(kept) < 3 && slices.ContainsFunc(often, func(o []string) bool { return slices.Equal(o, before[client]) }) {
			t.Errorf("client %d had %v and has %v", client, before[client], set)
		}
		if len(kept) < 3 {
			left++
		}
	}
	if left == 0 || left > 120-len(made.options)+1 {
		t.Errorf("%d clients had to move", left)
	}
	again := maps.Clone(after)
	if again.again(all, 3, 0, upTo(len(before))); fmt.Sprint(again) != fmt.Sprint(after) {
		t.Error("asked again, clients move again")
	}
}

// TestCase13 is the documented case of maxNextHops, as a node decides it.
func TestCase13(t *testing.T) {
	cfg, health := bounded(30, 1, 3)
	d := Decide(cfg, Observed{Health: health})
	load := map[string]int{}
	for a, set := range gatewaysOf(&d) {
		if len(set) != 1 {
			t.Fatalf("bound 1: %s has %v", a, set)
		}
		if a.Is4() {
			load[set[0]]++
		}
	}
	for _, g := range d.Gateways {
		if load[g.ID] != 10 || g.Clients != 10 {
			t.Errorf("gateway %s has %d of 30 pods, it says %d", g.ID, load[g.ID], g.Clients)
		}
	}
	w := newWorld(t)
	for _, n := range []int{3, 4, 5} {
		cfg, health := bounded(30, 4, n)
		w.settle(cfg, health)
		for a, set := range gatewaysOf(w.agent.prev) {
			if len(set) != min(n, 4) || !slices.Contains(set, ids(3)[0]) {
				t.Errorf("bound 4, %d gateways: %s has %v", n, a, set)
			}
			if n == 5 && slices.Contains(set, ids(5)[4]) {
				t.Errorf("%s had 4 gateways, and has %v", a, set)
			}
		}
	}
}

// bounded is a node with pods of both families, and a bounded rule for all.
func bounded(pods, bound, gateways int) (Config, map[string]Health) {
	cfg := node()
	cfg.Clients, cfg.Gateways = nil, nil
	for i := range pods {
		cfg.Clients = append(cfg.Clients, podAddresses(i)...)
	}
	for i, id := range ids(gateways) {
		cfg.Gateways = append(cfg.Gateways, gateway(id, 11+i))
	}
	cfg.Policies = []Policy{{Name: "p", Rules: []Rule{
		{Destination: prefix("0.0.0.0/0"), Gateways: ids(gateways), MaxNextHops: bound, Target: "red"},
		{Destination: prefix("::/0"), Gateways: ids(gateways), MaxNextHops: bound, Target: "red"}}}}
	return cfg, ready(ids(gateways)...)
}

// podAddresses are those of the i-th pod; their order is that of hosts in one family
// only.
func podAddresses(i int) []Client {
	v6 := prefix("fd00:244:1::/64").Addr().As16()
	binary.BigEndian.PutUint16(v6[14:], uint16(0xfff0-i))
	return []Client{{Address: netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), Pod: fmt.Sprintf("ns/p%d", i), Policy: "p"},
		{Address: netip.AddrFrom16(v6), Pod: fmt.Sprintf("ns/p%d", i), Policy: "p"}}
}

// gatewaysOf says for each client of bounded rules which gateways it has, as the packet
// filter and the sets have it.
func gatewaysOf(d *Desired) map[netip.Addr][]string {
	members := map[string][]string{}
	for _, s := range d.Sets {
		if s.Active {
			members["goto "+setName(&s)] = s.Members
		}
	}
	out := map[netip.Addr][]string{}
	for _, elements := range Choices(d.Filter) {
		for address, verdict := range elements {
			out[addr(address)] = members[verdict]
		}
	}
	return out
}

// FuzzChoose: whatever clients have had, each has a full set of usable gateways, the
// sets are few, and the same question again has the same answer.
func FuzzChoose(f *testing.F) {
	f.Add([]byte{3, 1, 0, 7, 7, 7, 1, 2, 4})
	f.Add([]byte{10, 3, 255, 1, 2, 3, 255, 0, 9, 200, 100, 1, 1, 1, 33})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 3 {
			return
		}
		all := ids(12)
		usable, bound, turn := all[:1+data[0]%12], int(data[1]%14), int(int8(data[2]))
		sets, clients := chosen{}, upTo(len(data)-3)
		for i, b := range data[3:] {
			for bit := range 8 { // gateways that cannot be used are among them
				if b>>bit&1 == 1 {
					sets[i] = append(sets[i], all[(bit+int(b)%5)%12])
				}
			}
			slices.Sort(sets[i])
		}
		made := sets.again(usable, bound, turn, clients)
		load := make([]int, len(made.ring))
		for client, set := range sets {
			if len(set) != min(max(bound, 1), len(usable)) || len(slices.Compact(slices.Clone(set))) != len(set) {
				t.Fatalf("client %d has %v", client, set)
			}
			for _, id := range set {
				load[slices.Index(made.ring, id)]++ // panics if it cannot be used
			}
		}
		if !slices.Equal(load, made.load) || len(made.options) > setsPerGateway*len(usable) {
			t.Fatalf("loads %v, it says %v; %d sets", load, made.load, len(made.options))
		}
		before := fmt.Sprint(sets)
		sets.again(usable, bound, turn, clients)
		if after := fmt.Sprint(sets); after != before {
			t.Fatalf("asked again:\n%s\n%s", before, after)
		}
	})
}

// BenchmarkChoose is what a round pays for 5,000 clients of a bounded rule: all of them
// new, and one of them.
func BenchmarkChoose(b *testing.B) {
	const clients, gateways, bound = 5000, 10, 2
	now := make([]int, clients)
	for i := range now {
		now[i] = -1
	}
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			choose(ids(gateways), bound, 0, nil, now)
		}
	})
	b.Run("one", func(b *testing.B) {
		c := choose(ids(gateways), bound, 0, nil, now)
		var had [][]string
		for i := range c.options {
			had = append(had, c.members(i))
		}
		known := slices.Clone(c.of)
		known[clients/2] = -1
		for b.Loop() {
			choose(ids(gateways), bound, 0, had, known)
		}
	})
}
