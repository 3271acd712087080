package nat

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/egret-router/egret/lab"
)

// manyConfig has 8 pools, exits by 8 of them for each hop set, spreads of 64
// buckets over them, and policies whose destinations go to spreads.
func manyConfig(hopSets, spreads, policies, destinations int) Config {
	cfg := bigConfig(policies, destinations)
	cfg.Pools, cfg.Exits = nil, nil
	for i := range 8 {
		cfg.Pools = append(cfg.Pools, Pool{
			Name: fmt.Sprintf("pool-%d", i), Network: "red", ID: uint16(1 + i),
			Pool4: addrs("198.51.100.0", "198.51.100.1"), Pool6: addrs("2001:db8:e::"),
		})
	}
	for h := range hopSets {
		for i, p := range cfg.Pools {
			cfg.Exits = append(cfg.Exits, Exit{
				Name: fmt.Sprintf("red/%d.%d", h, i), Network: "red", Mark: EgressMark | uint32(1+h)<<16 | uint32(p.ID), Pool: p.Name,
			})
		}
	}
	for s := range spreads {
		spread := Spread{Name: fmt.Sprintf("spread-%d", s)}
		for b := range 64 {
			spread.Exits = append(spread.Exits, cfg.Exits[(8*(s+b%16)+s)%len(cfg.Exits)].Name)
		}
		cfg.Spreads = append(cfg.Spreads, spread)
	}
	for p := range cfg.Policies {
		for d := range cfg.Policies[p].Rules {
			cfg.Policies[p].Rules[d].Exit = cfg.Spreads[(7*p+d)%spreads].Name
		}
	}
	return cfg
}

// However many exits, spreads, pools and policies there are, a packet passes
// the same few rules.
func TestRulesForAPacketStayFew(t *testing.T) {
	few, many := Render(manyConfig(1, 1, 1, 1)), Render(manyConfig(500, 1000, 100, 10))
	for name, c := range many.Chains {
		if len(c.Lines) > 8 {
			t.Errorf("chain %s has %d rules", name, len(c.Lines))
		}
		if one, ok := few.Chains[name]; ok && !one.equal(c) {
			t.Errorf("chain %s has %d rules with few exits and %d with many", name, len(one.Lines), len(c.Lines))
		}
	}
	if n := len(many.Sets[setMarks("red")].Elements); n != 4000 {
		t.Errorf("the guard lets %d marks pass", n)
	}
}

func setMarks(network string) string { return objectName(prefixGuardMarks, network) }

func TestKernelTakesManyExits(t *testing.T) {
	k := newKernelTable(t)
	k.become(Render(manyConfig(100, 100, 10, 10))) // as many as an emulated machine can take; see the benchmark
}

// What loading and editing costs at 4,000 exits, 1,000 spreads and 1,000
// policies of 100 destinations.
func BenchmarkKernelExits(b *testing.B) {
	lab.Require(b, lab.Nft)
	ns := lab.New(b).MustNamespace("gw")
	cfg := manyConfig(500, 1000, 1000, 100)
	big := Render(cfg)
	cfg.Spreads[7].Exits[9] = cfg.Exits[77].Name
	there, back := Diff(big, Render(cfg)), Diff(Render(cfg), big)
	b.Run("render", func(b *testing.B) {
		for b.Loop() {
			Render(cfg)
		}
	})
	run := func(name string, f func(t *Table) error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ns.Do(func() error {
					t, err := Open(slog.Default())
					if err != nil {
						return err
					}
					return f(t)
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("load", func(t *Table) error {
		return errors.Join(t.Delete(b.Context()), t.Apply(b.Context(), Diff(Ruleset{}, big)))
	})
	run("snapshot", func(t *Table) error { _, err := t.Snapshot(b.Context()); return err })
	run("edit there and back", func(t *Table) error {
		return errors.Join(t.Apply(b.Context(), there), t.Apply(b.Context(), back))
	})
}
