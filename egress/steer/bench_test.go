package steer

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/egret-router/egret/egress/nat"
)

// large is a node with 250 pods, each with one of 500 policies of three rules, and 50
// gateways.
func large() (Config, map[string]Health) {
	cfg := node()
	cfg.Clients, cfg.Policies, cfg.Gateways = nil, nil, nil
	var ids []string
	for i := range 50 {
		g := gateway(fmt.Sprintf("gw%02d", i), 11+i)
		cfg.Gateways, ids = append(cfg.Gateways, g), append(ids, g.ID)
	}
	for i := range 500 {
		some := ids[i%10*5 : i%10*5+5]
		cfg.Policies = append(cfg.Policies, Policy{Name: fmt.Sprintf("p%03d", i), Rules: []Rule{
			{Destination: prefix("0.0.0.0/0"), Gateways: some, MaxNextHops: i % 4}, {Destination: prefix("::/0"), Gateways: some},
			{Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i), 0, 0}), 16), Skip: true}}})
	}
	for i := range 250 {
		cfg.Clients = append(cfg.Clients, Client{Address: netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i)}), Policy: fmt.Sprintf("p%03d", 2*i%500)})
	}
	return cfg, ready(ids...)
}

func BenchmarkDecide(b *testing.B) {
	cfg, health := large()
	var d Desired
	for b.Loop() {
		d = Decide(cfg, Observed{Health: health})
	}
	b.ReportMetric(float64(len(d.Sets)), "sets")
}

// BenchmarkOnePod is a pod that comes: deciding, and what of the filter differs.
func BenchmarkOnePod(b *testing.B) {
	cfg, health := large()
	var memo Memo
	before := memo.Decide(cfg, Observed{Health: health})
	cfg.Clients = append(cfg.Clients, Client{Address: addr("10.244.1.254"), Policy: "p001"})
	var plan nat.Plan
	for b.Loop() {
		plan = nat.Diff(before.Filter, memo.Decide(cfg, Observed{Health: health}).Filter)
	}
	b.ReportMetric(float64(len(plan.Ops)), "operations")
}
