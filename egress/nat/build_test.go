package nat

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// otherRules is a table with a map to chains, a set and a counter.
func otherRules(clients ...string) Ruleset {
	r := NewRuleset("other")
	r.Counters["lost"] = true
	r.AddChain("deny", Base{}, `counter name "lost" drop`)
	r.AddChain("in", Base{"filter", "prerouting", -310, "accept"}, "ip daddr @inside return", "ip saddr vmap @clients")
	values := []Value{}
	for _, c := range clients {
		values = append(values, Value{netip.MustParsePrefix(c), "goto deny"})
	}
	r.Sets["clients"] = AddressMap(values, true)
	r.Sets["inside"] = AddressSet([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}, true)
	return r
}

// TestKernelTwoTables: two tables are kept side by side, by nft and by messages of our
// own, each seeing its own content and changes only.
func TestKernelTwoTables(t *testing.T) {
	k := newKernelTable(t)
	k.become(Render(smallConfig()))
	var other *Table
	k.do(func() (err error) { other, err = OpenTable("other", slog.New(slog.DiscardHandler)); return err })
	seen := make(chan struct{}, 100)
	end := k.watching(receiveBuffer, func() { seen <- struct{}{} }, seen)
	for len(seen) > 0 {
		<-seen
	}
	var have Ruleset
	for _, want := range []Ruleset{otherRules("192.0.2.0/24"), otherRules("192.0.2.0/24", "192.0.2.7/32", "198.51.100.0/24"), otherRules("192.0.2.7/32"), {}} {
		plan := Diff(have, want)
		if text := plan.String(); !strings.Contains(text, "inet other") || strings.Contains(text, "egret") {
			t.Errorf("the plan is for another table:\n%s", text)
		}
		k.do(func() error { return other.Apply(t.Context(), plan) })
		k.do(func() (err error) { have, err = other.Snapshot(t.Context()); return err })
		if again := Diff(have, want); !again.Empty() {
			t.Fatalf("left:\n%s", again)
		}
	}
	k.do(func() error {
		if other.Apply(t.Context(), Diff(Ruleset{}, Render(smallConfig()))) == nil {
			t.Error("took a plan for another table")
		}
		return nil
	})
	k.become(Render(smallConfig()))
	if len(seen) > 0 {
		t.Errorf("%d notifications about another table", len(seen))
	}
	if err := k.nft(poke); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, time.Minute, "a notification of our own table", func() error { return within2s(seen) })
	end()
}
