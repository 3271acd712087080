package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/egret-router/egret/egress/config"
)

// FuzzSnapshot reads a Snapshot as it is kept on disk, and holds that whatever it
// says nothing panics, that what the controller decides holds, and that the
// configuration of each node is sound.
func FuzzSnapshot(f *testing.F) {
	for seed := range uint64(6) {
		b, err := json.Marshal(randomSnapshot(seed))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"Nodes":[{"Name":"n1","Ready":true,"Addresses":["fe80::1%eth0","::ffff:10.0.0.1",""],"PodPrefixes":["0.0.0.0/0","10.1.2.3/8",""]}]}`))
	f.Add([]byte(`{"Pods":[{"Name":"p","Node":"","Addresses":["", "127.0.0.1", "::ffff:10.0.0.1"]}],"Gateways":[{},{}],"Policies":[{},{}],"Pools":[{},{}],"Networks":[{},{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Snapshot
		if len(b) > 16<<10 || json.Unmarshal(b, &s) != nil || len(s.Nodes) > 20 {
			return
		}
		if err := callAll(s); err != nil {
			t.Fatal(err)
		}
	})
}

// TestMutatedSnapshots puts nonsense in random places of random clusters.
func TestMutatedSnapshots(t *testing.T) {
	nonsense := []any{"", nil, "x", "::", "fe80::1%eth0", "::ffff:10.0.0.1/100", "0.0.0.0/0", "10.0.0.0/8", "n1", "red", "p0", "egress", "all()", "!(", -1, 0, 1, 33, 129, 1 << 40,
		"2026-03-01T12:00:00Z", true, []any{}, map[string]any{}, "198.51.0.0/28", "198.51.0.1/32"}
	r := rand.New(rand.NewPCG(3, 4))
	read := 0
	for i := range 1500 {
		b, err := json.Marshal(randomSnapshot(uint64(i % 100)))
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(b, &tree); err != nil {
			t.Fatal(err)
		}
		for range 1 + r.IntN(4) {
			mutate(r, tree, nonsense)
		}
		if b, err = json.Marshal(tree); err != nil {
			t.Fatal(err)
		}
		var s Snapshot
		if json.Unmarshal(b, &s) != nil {
			continue
		}
		read++
		if err := callAll(s); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
	}
	if read < 400 {
		t.Errorf("%d could be read: that is no test", read)
	}
}

// mutate replaces something in a tree of JSON.
func mutate(r *rand.Rand, tree any, by []any) {
	for depth := 0; ; depth++ {
		stop := depth > 0 && r.IntN(4) == 0
		switch at := tree.(type) {
		case map[string]any:
			keys := slices.Sorted(maps.Keys(at))
			if len(keys) == 0 {
				return
			}
			k := keys[r.IntN(len(keys))]
			if _, leaf := at[k].(string); stop || leaf {
				at[k] = like(r, at[k], by)
				return
			}
			tree = at[k]
		case []any:
			if len(at) == 0 {
				return
			}
			k := r.IntN(len(at))
			if _, leaf := at[k].(string); stop || leaf {
				at[k] = like(r, at[k], by)
				return
			}
			tree = at[k]
		default:
			return
		}
	}
}

// like is one of the values, of the kind that is there, or nothing.
func like(r *rand.Rand, old any, by []any) any {
	of := slices.DeleteFunc(slices.Clone(by), func(x any) bool {
		_, number := x.(int)
		_, wasNumber := old.(float64)
		return x != nil && !(number && wasNumber) && reflect.TypeOf(x) != reflect.TypeOf(old)
	})
	return of[r.IntN(len(of))]
}

// callAll calls everything, and holds what must be true of any Snapshot.
func callAll(s Snapshot) error {
	unique(&s)
	Validate(s, "")
	for range 2 {
		decide(&s, day())
		if err := single(&s); err != nil {
			return err
		}
	}
	for _, n := range s.Nodes {
		plan, _ := GatewayConfig(s, n.Name, options())
		if _, problems := config.Parse(plan.Raw); len(problems) > 0 {
			return fmt.Errorf("%v", problems)
		}
		Steering(s, n.Name, SteerOptions{})
	}
	for _, g := range s.Gateways {
		for _, i := range g.Instances {
			Affected(s, InstanceID(g.Key(), i.Node), "", nil)
		}
	}
	return nil
}

// unique drops what an API server would never hold: two objects of one name.
func unique(s *Snapshot) {
	seen := map[string]bool{}
	once := func(kind, name string) bool {
		key := kind + "\x00" + name
		if seen[key] {
			return false
		}
		seen[key] = true
		return true
	}
	s.Nodes = keep(s.Nodes, func(n Node) bool { return once("node", n.Name) })
	s.Namespaces = keep(s.Namespaces, func(n Namespace) bool { return once("namespace", n.Name) })
	s.Networks = keep(s.Networks, func(n Network) bool { return once("network", n.Name) })
	s.Pools = keep(s.Pools, func(p Pool) bool { return once("pool", p.Name) })
	s.Policies = keep(s.Policies, func(p Policy) bool { return once("policy", p.Name) })
	s.Gateways = keep(s.Gateways, func(g Gateway) bool { return once("gateway", g.Key()) })
}

func keep[T any](list []T, ok func(T) bool) []T {
	var kept []T
	for _, x := range list {
		if ok(x) {
			kept = append(kept, x)
		}
	}
	return kept
}

// TestSnapshotOnDisk: what is read is what was written.
func TestSnapshotOnDisk(t *testing.T) {
	for seed := range uint64(20) {
		s := randomSnapshot(seed)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again Snapshot
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatal(err)
		}
		one, _ := GatewayConfig(s, "n1", options())
		two, _ := GatewayConfig(again, "n1", options())
		if !reflect.DeepEqual(one, two) {
			t.Fatalf("seed %d: %+v, then %+v", seed, one, two)
		}
	}
}
