package config

import (
	"fmt"
	"strings"
	"testing"
)

// large is a configuration with one policy of that many rules, and as many
// policies of one.
func large(n int) []byte {
	var b strings.Builder
	b.WriteString(`clients: {interfaces: [eth0], prefixes: [10.0.0.0/8]}
networks:
  - {name: red, interfaces: [eth1]}
pools:
  - {name: red-pool, network: red, prefixes: [198.51.100.0/28]}
policies:
  - name: many
    clients: [10.255.0.0/16]
    rules:
`)
	for i := range n {
		fmt.Fprintf(&b, "      - {destination: %d.%d.%d.0/24, network: red}\n", 20+i>>16, i>>8&255, i&255)
	}
	for i := range n {
		fmt.Fprintf(&b, "  - {name: p%d, clients: [10.%d.%d.%d], rules: [{network: red}]}\n", i, i>>16, i>>8&255, i&255)
	}
	return []byte(b.String())
}

// TestLargeIsLinear holds the cost to the size: 8 times the size may take no
// more than 4 times as many allocations for each part of it.
func TestLargeIsLinear(t *testing.T) {
	perRule := func(n int) float64 {
		data := large(n)
		return testing.AllocsPerRun(1, func() {
			spec, err := Read("large.yaml", data)
			if err != nil || len(spec.Policies) != n+1 || len(spec.Policies[0].Rules) != n {
				t.Fatalf("%d rules: %v", n, err)
			}
		}) / float64(n)
	}
	if small, large := perRule(100), perRule(800); large > 4*small {
		t.Errorf("%.0f allocations for each of 100, %.0f for each of 800", small, large)
	}
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1000, 50_000} {
		data := large(n)
		b.Run(fmt.Sprintf("rules=%d", 2*n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Read("large.yaml", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAliasesAreBounded reads a small file that stands for a very large one.
func TestAliasesAreBounded(t *testing.T) {
	data := "networks:\n  - &red {name: red, interfaces: [eth1], addresses: [" + strings.Repeat("10.0.0.1/24, ", 2000) + "]}\n" +
		strings.Repeat("  - *red\n", 3000)
	_, err := Read("egret.yaml", []byte(data))
	if err == nil || err.Error() != "egret.yaml:1: the file has more than 4000000 values (an alias counts as all it stands for)" {
		t.Error(err)
	}
}
