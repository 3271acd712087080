package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/lab"
)

// TestConfigParses reads every configuration as Egret does, and finds each
// stream's way in it.
func TestConfigParses(t *testing.T) {
	for _, c := range allCases(false) {
		if c.Kind != egretRouter {
			continue
		}
		spec, err := config.Read(c.Name+".yaml", []byte(egretConfig(c, false)))
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if len(spec.Policies) != c.Policies || len(spec.Networks) != c.Networks || len(spec.Pools) != c.Networks {
			t.Errorf("%s: %d policies, %d networks, %d pools", c.Name, len(spec.Policies), len(spec.Networks), len(spec.Pools))
		}
		if n := clientPrefixes(spec); c.Policies > 1 && n != 2*manyPolicies*prefixesEach {
			t.Errorf("%s: %d client prefixes", c.Name, n)
		}
		for k := range streams {
			for _, f := range lab.Families() {
				network := networkOf(spec, clientAddr(k, f), serverAddr(k, f))
				pool := poolOf(spec, network)
				if network == "" || !pool.Contains(c.replyAddr(k, f)) && f == lab.IPv4 {
					t.Errorf("%s: stream %d goes to network %q, but its replies to %v", c.Name, k, network, c.replyAddr(k, f))
				}
			}
		}
	}
}

func clientPrefixes(spec *egress.Spec) int {
	n := 0
	for _, p := range spec.Policies {
		n += len(p.Clients)
	}
	return n
}

// networkOf is the network of a client's traffic by the longest prefixes.
func networkOf(spec *egress.Spec, client, server netip.Addr) string {
	network, best := "", -1
	for _, p := range spec.Policies {
		for _, prefix := range p.Clients {
			if !prefix.Contains(client) {
				continue
			}
			for _, r := range p.Rules {
				if r.Destination.Contains(server) && r.Destination.Bits() > best {
					network, best = r.Network, r.Destination.Bits()
				}
			}
		}
	}
	return network
}

func poolOf(spec *egress.Spec, network string) netip.Prefix {
	for _, p := range spec.Pools {
		if p.Network == network {
			for _, prefix := range p.Prefixes {
				if prefix.Addr().Is4() {
					return prefix
				}
			}
		}
	}
	return netip.Prefix{}
}

// TestPrefixesAreApart holds that the many client prefixes lie within their
// family's and that no two of them are neighbours that could be merged.
func TestPrefixesAreApart(t *testing.T) {
	within := map[lab.Family]netip.Prefix{lab.IPv4: clients4, lab.IPv6: clients6}
	for _, f := range lab.Families() {
		last := netip.Prefix{}
		for i := range manyPolicies * prefixesEach {
			p := clientPrefix(i, f)
			if !within[f].Contains(p.Addr()) || p.Masked() != p {
				t.Fatalf("%s prefix %d is %s", f, i, p)
			}
			if i > 0 && (!last.Addr().Less(p.Addr()) || last.Overlaps(p)) {
				t.Fatalf("%s prefix %d is %s, after %s", f, i, p, last)
			}
			last = p
		}
	}
}

func TestStreamsAreSpread(t *testing.T) {
	for k := range streams {
		i := clientIndex(k)
		if i >= manyPolicies*prefixesEach || i%manyPolicies%manyNetworks != k {
			t.Errorf("stream %d comes from prefix %d of policy %d", k, i, i%manyPolicies)
		}
	}
}

func TestVariants(t *testing.T) {
	cases, err := withVariants(allCases(false), []string{"less=egret-p1-n1:/x/less.sh"})
	if err != nil {
		t.Fatal(err)
	}
	last := cases[len(cases)-1]
	if last.Name != "less" || last.Edit != "/x/less.sh" || last.Kind != egretRouter || last.Policies != 1 {
		t.Errorf("variant %+v", last)
	}
	for _, bad := range []string{"less", "less=plain:/x", "less=egret-p1-n2:/x", "less=egret-p1-n1:"} {
		if _, err := withVariants(allCases(false), []string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	chosen, err := selectCases(cases, "^less$")
	if err != nil || len(chosen) != 2 || chosen[0].Name != plainName || chosen[1].Name != "less" {
		t.Errorf("chosen %+v, %v", chosen, err)
	}
}

func TestCasesHaveDifferentNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range allCases(true) {
		if seen[c.Name] {
			t.Errorf("two cases are called %q", c.Name)
		}
		seen[c.Name] = true
		if c.Flowtable != strings.HasSuffix(c.Name, "-ft") {
			t.Errorf("%q has flowtable %t", c.Name, c.Flowtable)
		}
	}
	if len(allCases(true)) != len(allCases(false))+4 {
		t.Error("the cases with flowtable do not depend on whether Egret has one")
	}
}
