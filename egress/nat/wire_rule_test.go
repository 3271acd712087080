package nat

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
)

// Every form of rule that is sent without nft is what nft makes of it, and so is taking it
// away again, with the set that the kernel made for it.
func TestKernelTakesRules(t *testing.T) {
	lab.Require(t, lab.Nft, lab.Conntrack)
	l := lab.New(t)
	direct, byNft := tableIn(t, l.MustNamespace("direct")), tableIn(t, l.MustNamespace("nft"))
	base := newRuleset()
	base.AddChain("target", Base{})
	full := base.fork()
	for name, ipv4 := range map[string]bool{"four": true, "six": false} {
		full.Sets[name] = AddressMap([]Value{{netip.MustParsePrefix("10.0.0.0/8"), "goto target"}, {netip.MustParsePrefix("fd00::/8"), "goto target"}}, ipv4)
	}
	full.AddChain("every", Base{}, localRule, "ct original zone set 39999", "ct original zone set 1",
		"meta mark set meta mark & 0xffffcf00 | 0x00002000", "ct mark set ct mark & 0xbffff000 | 0x40000ffd", "meta mark set meta mark & 0xffffffff | 0x0000000f",
		"ip saddr vmap @four", "ip daddr vmap @four", "ip6 saddr vmap @six", "ip6 daddr vmap @six", "jump target", "goto target")
	full.AddChain("again", Base{}, localRule)
	have := Ruleset{}
	for step, want := range []Ruleset{base, full, base, full} {
		plan := Diff(have, want)
		if step == 0 {
			direct.apply(plan)
		} else {
			batch, ok := encode(plan)
			if !ok {
				t.Fatalf("cannot be sent:\n%s", plan)
			}
			direct.do(func() error { return direct.send(t.Context(), batch) })
		}
		byNft.do(func() error {
			_, err := byNft.run(t.Context(), true, plan.script(), "-f", "-")
			return err
		})
		if a, b := listed(t, direct), listed(t, byNft); a != b {
			t.Fatalf("step %d: sent by us the table is\n%s\nby nft\n%s", step, a, b)
		}
		if a, b := messages(t, direct), messages(t, byNft); a != b {
			t.Fatalf("step %d: sent by us the kernel has\n%s\nby nft\n%s", step, a, b)
		}
		have = want
	}
	if !strings.Contains(messages(t, direct), "fib daddr type") {
		t.Error("the expressions of rules are not seen")
	}
	direct.is(full)
}

// messages are the expressions of the table's rules, as the kernel has them. The numbers of
// sets without a name differ.
func messages(t *testing.T, k kernelTable) string {
	t.Helper()
	cmd := k.ns.Command(t.Context(), "nft", "--debug=netlink", "list", "ruleset")
	out, err := k.ns.RunCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "  [ ") {
			kept.WriteString(unnamed.ReplaceAllString(line, "a set"))
		}
	}
	return kept.String()
}

var unnamed = regexp.MustCompile(`__set\d+`)

// What looks like one of these rules and is none goes by nft.
func TestOtherRulesAreNotSent(t *testing.T) {
	for _, text := range []string{"accept", "ct mark set meta mark & 0x1 | 0x2", "meta mark set meta mark & 0x100000000 | 0x1", "meta mark set meta mark & 0x1", "ct original zone set 65536",
		"ct zone set 1", "ip saddr 10.0.0.1 accept", "ip daddr vmap { 10.0.0.0/8 : accept }", "fib daddr type { local } return", "goto target accept", "jump { accept; }"} {
		if _, ok := encode(Plan{Ops: []Op{{Verb: verbAdd, Kind: kindRule, Name: "x", Line: newLine(text)}}}); ok {
			t.Errorf("encoded: %s", text)
		}
	}
	long := newLine("jump target")
	long.ID = fmt.Sprintf("%200d", 1)
	if _, ok := encode(Plan{Ops: []Op{{Verb: verbAdd, Kind: kindRule, Name: "x", Line: long}}}); ok {
		t.Error("encoded a comment that is too long")
	}
}
