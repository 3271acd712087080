package nat

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Whatever changes between two calls, a Renderer gives what rendering afresh
// gives, and what it gave before stays as it was.
func TestRendererEqualsRender(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 31))
		cfg := actionsConfig()
		cached := newRenderer(func(int) int { return 8 })
		var have Ruleset
		var texts []string
		var given []Ruleset
		for step := range 60 {
			mutate(rng, &cfg)
			if rng.IntN(4) == 0 {
				shuffle(rng, &cfg)
			}
			cfg.Exits = uniqueMarks(cfg.Exits)
			got, want := cached.Render(cfg), renderFew(cfg)
			if got.String() != want.String() || !got.Equal(want) {
				t.Fatalf("seed %d step %d: differs from a fresh one by\n%s", seed, step, Diff(got, want))
			}
			plan := Diff(have, got)
			next, err := plan.ApplyTo(have)
			if err != nil || plan.String() != Diff(have.Clone(), want).String() {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			have = next
			given, texts = append(given, got), append(texts, got.String())
		}
		for i, r := range given {
			if r.String() != texts[i] {
				t.Fatalf("seed %d: what step %d gave has changed", seed, i)
			}
		}
	}
}

// uniqueMarks leaves one exit for each mark: of several, any may be rendered.
func uniqueMarks(exits []Exit) []Exit {
	seen := map[uint32]bool{}
	return slices.DeleteFunc(slices.Clone(exits), func(e Exit) bool {
		twice := seen[e.Mark]
		seen[e.Mark] = true
		return twice
	})
}

// The caller may change its configuration in place.
func TestRendererKeepsNoConfig(t *testing.T) {
	cached, cfg := NewRenderer(), actionsConfig()
	for i, edit := range []func(){
		func() {},
		func() { cfg.Policies[2].Rules[0].Action = Drop },
		func() { cfg.Policies[1].Clients[0] = prefixes("10.244.0.99/32")[0] },
		func() { cfg.ClientPrefixes[0] = prefixes("10.244.0.0/17")[0] },
		func() { cfg.Pools[0].Pool4[0] = addrs("198.51.100.1")[0] },
		func() { cfg.Exits[1].Mark = 0 },
	} {
		edit()
		if got, want := cached.Render(cfg), Render(cfg); got.String() != want.String() {
			t.Errorf("edit %d: differs by\n%s", i, Diff(got, want))
		}
	}
}

// What did not change is the same in memory, in what is rendered and in what
// follows a plan.
func TestRulesetsShareMemory(t *testing.T) {
	cached, cfg := NewRenderer(), bigConfig(20, 10)
	before := cached.Render(cfg)
	cfg.Policies = slices.Clone(cfg.Policies)
	cfg.Policies[3].Rules = slices.Clone(cfg.Policies[3].Rules[1:])
	after := cached.Render(cfg)
	followed, err := Diff(before, after).ApplyTo(before)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Ruleset{after, followed} {
		for name, s := range r.Sets {
			old := before.Sets[name]
			big := len(s.Elements) >= 9 && !isGuard(name)
			if shared := sameMemory(s, old); big && shared != (name != "dst4_policy-3") {
				t.Errorf("%s: shared is %t", name, shared)
			}
		}
	}
	if len(before.Sets["dst4_policy-3"].Elements) != 10 || len(followed.Sets["dst4_policy-3"].Elements) != 9 {
		t.Error("following a plan changed where it began")
	}
}

func TestApplyToRefusesOverlaps(t *testing.T) {
	r := Render(smallConfig())
	add := func(keys ...string) (p Plan) {
		for _, key := range keys {
			p.Ops = append(p.Ops, Op{Verb: verbAdd, Kind: kindElement, Name: mapClients4, Key: key, Value: "goto policy_team-a"})
		}
		return p
	}
	for _, bad := range []Plan{add("10.244.1.5"), add("10.244.2.0/24", "10.244.2.128/25"), add("10.244.0.0-10.244.1.0"), add("x")} {
		if got, err := bad.ApplyTo(r); err == nil || !got.Equal(r) {
			t.Errorf("taken:\n%s", bad)
		}
	}
	if _, err := add("10.244.2.0/24", "10.244.3.0/24").ApplyTo(r); err != nil {
		t.Error(err)
	}
}
