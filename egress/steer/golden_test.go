package steer

import (
	"slices"
	"testing"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/golden"
)

// TestGolden is the packet filter of three pods with a bounded rule, what it costs that a
// pod comes, and that a gateway is lost. nft takes each.
func TestGolden(t *testing.T) {
	cfg, health := bounded(3, 2, 3)
	before := Decide(cfg, Observed{Health: health})
	golden.Check(t, "bounded.nft", before.Filter.String())
	observe := func(d Desired) Observed {
		o := Observed{Health: health, Choices: Choices(d.Filter)}
		for _, s := range d.Sets {
			o.Sets = append(o.Sets, KernelSet{Number: s.Number, Markers: s.markers, Hops: s.hops})
		}
		return o
	}
	more := cfg
	more.Clients = append(slices.Clone(cfg.Clients), podAddresses(3)...)
	with := Decide(more, observe(before))
	golden.Check(t, "bounded-pod.plan", nat.Diff(before.Filter, with.Filter).String())
	health = ready(ids(3)[1:]...)
	health[ids(3)[0]] = Down
	without := Decide(more, observe(with))
	golden.Check(t, "bounded-loss.plan", nat.Diff(with.Filter, without.Filter).String())

	lab.Require(t, lab.Nft)
	l := lab.New(t)
	ns := l.MustNamespace("node")
	for _, d := range []Desired{before, with, without} {
		ns.Must("nft", "-c", d.Filter.String())
	}
}
