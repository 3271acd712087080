package nat

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab/golden"
)

func TestRenderGoldens(t *testing.T) {
	for name, cfg := range testConfigs() {
		golden.Check(t, name+".nft", Render(cfg).String())
	}
}

// The plans by which the overlap configuration comes, is edited and goes.
func TestPlanGoldens(t *testing.T) {
	want := Render(overlapConfig())
	first := DiffGuards(Ruleset{}, want)
	golden.Check(t, "overlap-first-guards.plan", first.String())

	edited := overlapConfig()
	edited.Policies[0].Rules[0].Action = Drop
	edited.Policies[1].Clients = append(edited.Policies[1].Clients, prefixes("10.244.0.12/32")...)
	golden.Check(t, "overlap-edit.plan", Diff(want, Render(edited)).String())

	golden.Check(t, "overlap-teardown.plan", RemoveAllButGuards(want).String())
}

func TestRenderIgnoresOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, cfg := range testConfigs() {
		want := Render(cfg).String()
		for range 20 {
			shuffle(rng, &cfg)
			if got := Render(cfg).String(); got != want {
				t.Fatalf("%s: another order gives another ruleset", name)
			}
		}
	}
}

func shuffle(rng *rand.Rand, cfg *Config) {
	shuffled(rng, &cfg.ClientInterfaces)
	shuffled(rng, &cfg.ClientPrefixes)
	shuffled(rng, &cfg.Networks)
	shuffled(rng, &cfg.Pools)
	shuffled(rng, &cfg.Exits)
	shuffled(rng, &cfg.Spreads)
	shuffled(rng, &cfg.Policies)
	for i := range cfg.Networks {
		shuffled(rng, &cfg.Networks[i].Ports)
		shuffled(rng, &cfg.Networks[i].Sources)
		shuffled(rng, &cfg.Networks[i].Own)
	}
	for i := range cfg.Pools {
		shuffled(rng, &cfg.Pools[i].Pool4)
		shuffled(rng, &cfg.Pools[i].Pool6)
	}
	for i := range cfg.Policies {
		shuffled(rng, &cfg.Policies[i].Clients)
		shuffled(rng, &cfg.Policies[i].Rules)
	}
}

func shuffled[T any](rng *rand.Rand, s *[]T) {
	*s = slices.Clone(*s)
	rng.Shuffle(len(*s), func(i, j int) { (*s)[i], (*s)[j] = (*s)[j], (*s)[i] })
}

// Exits that something is wrong with drop, and no guard lets their marks pass.
func TestRenderFailsClosed(t *testing.T) {
	cfg := smallConfig()
	cfg.Networks = append(cfg.Networks, Network{Name: "blue", Device: "blue", Ports: []string{"eth2"}, Zone: 40002})
	pool := func(name, network string, id uint16) Pool {
		return Pool{Name: name, Network: network, ID: id, Pool4: addrs("198.51.100.1")}
	}
	cfg.Pools = append(cfg.Pools, pool("of-blue", "blue", 2), pool("green", "green", 3), pool("twin-a", "red", 4), pool("twin-b", "red", 4),
		pool("none", "red", 0), pool("high", "red", 0x1001))
	exits := map[string]Exit{
		"unmarked":       {Network: "red", Mark: 0x00010001, Pool: "red-pool"},
		"no hop set":     {Network: "red", Mark: 0x10000001, Pool: "red-pool"},
		"return":         {Network: "red", Mark: 0x30010001, Pool: "red-pool"},
		"foreign bits":   {Network: "red", Mark: 0x10014001, Pool: "red-pool"},
		"no pool":        {Network: "red", Mark: redMark},
		"unknown pool":   {Network: "red", Mark: redMark, Pool: "gone"},
		"other pool's":   {Network: "red", Mark: 0x10010002, Pool: "red-pool"},
		"other net's":    {Network: "red", Mark: 0x10010002, Pool: "of-blue"},
		"no network":     {Network: "green", Mark: 0x10010003, Pool: "green"},
		"pools share id": {Network: "red", Mark: 0x10010004, Pool: "twin-a"},
		"pool without":   {Network: "red", Mark: 0x10010000, Pool: "none"},
		"pool too high":  {Network: "red", Mark: 0x10010001, Pool: "high"},
	}
	cfg.Policies[0].Rules = []Rule{rule("10.0.0.0/16", ToExit, "gone")}
	for name, e := range exits {
		e.Name = name
		cfg.Exits = append(cfg.Exits, e)
		cfg.Policies[0].Rules = append(cfg.Policies[0].Rules, rule(fmt.Sprintf("10.%d.0.0/16", len(cfg.Exits)), ToExit, name))
	}
	r := Render(cfg)
	for _, piece := range r.Sets["dst4_team-a"].Elements {
		if piece != "goto decide_drop" {
			t.Errorf("a rule goes on to %s", piece)
		}
	}
	if marks := r.Sets["guard_marks_red"].Elements; len(marks) != 1 || len(r.Sets["guard_marks_blue"].Elements) != 0 {
		t.Errorf("the guards let the marks %v pass", marks)
	}
	if pools := r.Sets["pools"].Elements; len(pools) != 2 {
		t.Errorf("translated are %v", pools)
	}
}

func TestRenderPanicsOnDeviceNames(t *testing.T) {
	for _, name := range []string{"", `a"b`, "eth*", "a b", "a/b", `a\`, "0123456789abcdef", "a\nb"} {
		client, flow := smallConfig(), smallConfig()
		client.ClientInterfaces = []string{name}
		flow.FlowDevices = []string{name}
		for _, cfg := range []Config{client, flow} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("device %q was rendered", name)
					}
				}()
				Render(cfg)
			}()
		}
	}
}

// Different names never give the same object.
func TestObjectNames(t *testing.T) {
	names := []string{"a", "a_b", "a/b", "a b", "a-b", "a.b", "ä", "ö", "", strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("x", 66)}
	seen := map[string]string{}
	for _, name := range names {
		object := objectName(prefixPolicy, name)
		if other, ok := seen[object]; ok {
			t.Errorf("%q and %q are both %q", name, other, object)
		}
		if len(object) > 100 {
			t.Errorf("%q is too long for nft", object)
		}
		seen[object] = name
	}
}
