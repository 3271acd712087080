package egress

import (
	"net/netip"
	"slices"

	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/vrf"
)

// judge decides which flows have to end, from what was decided in one round. It
// is immutable.
type judge struct {
	decider *decider
	// pools are the pools by their number in a mark, networks the owners of
	// hop-set numbers.
	pools    map[uint16]*Pool
	networks map[uint16]string
	// sets are the active paths of a hop set: of its key, with the network's own
	// number for a set that needs none.
	sets map[string]map[uint16]bool
	// cut are the networks whose drain is over and ends what is left, away those
	// whose new flows are routed normally for now.
	cut, away map[string]bool
	// cutting says that a policy wants its established flows to follow edits.
	cutting bool
}

// newJudge makes a judge; the decider of the one before is used again where it
// can be, since a Spec may have 100,000 rules.
func newJudge(spec *Spec, want *Desired, poolIDs map[string]uint16, own []netip.Addr, before *judge) *judge {
	j := &judge{pools: map[uint16]*Pool{}, networks: map[uint16]string{}, sets: want.sets, cut: map[string]bool{}, away: map[string]bool{}}
	fallback := map[string]bool{}
	for _, n := range spec.Networks {
		fallback[n.Name] = n.OnNoNextHop == NoNextHopFallback
	}
	if before != nil && before.decider.spec == spec && before.decider.knows(own) {
		j.decider = before.decider
	} else {
		j.decider = newDecider(spec, own)
	}
	for i := range spec.Pools {
		j.pools[poolIDs[spec.Pools[i].Name]] = &spec.Pools[i]
	}
	for _, n := range want.Networks {
		j.networks[n.Index] = n.Name
		j.cut[n.Name] = n.Drain.Stage == drain.Withdrawn && n.Drain.Cut
		j.away[n.Name] = fallback[n.Name] && (!n.Up || n.Drain.Refuses())
		for _, p := range n.Paths {
			if p.Number != 0 {
				j.networks[p.Number] = n.Name
			}
		}
	}
	for _, p := range spec.Policies {
		j.cutting = j.cutting || p.Cut
	}
	return j
}

// markParts takes a mark apart.
func markParts(mark uint32) (hopSet, pool uint16) {
	return uint16(vrf.Mark(mark) & (maskHopSet &^ markEgress) >> hopSetBit), uint16(mark & maxIndex)
}

// ends says whether a flow that went to a network must end: its address is no
// pool's any more, its path is gone, its network's drain is over and cuts, its
// client may not send it any more, or the policy that sends it elsewhere says so.
func (j *judge) ends(f flows.Flow) bool {
	number, poolID := markParts(f.Mark)
	network, pool := j.networks[number], j.pools[poolID]
	if network == "" || pool == nil || pool.Network != network || !inPool(pool, f.Address) || j.cut[network] {
		return true
	}
	d := j.decider.decide(f.Src, f.Dst)
	switch d.Outcome {
	case OutcomeDrop, OutcomeReject:
		return true
	case OutcomeNormal:
		return d.Policy != nil && d.Policy.Cut
	}
	if !d.Policy.Cut {
		return false
	}
	if d.Rule.Network != network || d.Rule.Pool != pool.Name {
		return true
	}
	return !j.sets[setOf(*d.Rule, j.decider.bounds[network]).key()][number]
}

// strays says whether a flow that went no network's way must end: a policy sends
// it to one now, and wants its flows to follow.
func (j *judge) strays(f flows.Flow) bool {
	d := j.decider.decide(f.Src, f.Dst)
	if d.Outcome == OutcomeNetwork && j.away[d.Rule.Network] {
		return false
	}
	return d.Outcome != OutcomeNormal && d.Policy != nil && d.Policy.Cut
}

// network is the network of a mark, "" if there is none.
func (j *judge) network(mark uint32) string {
	number, _ := markParts(mark)
	return j.networks[number]
}

func inPool(p *Pool, a netip.Addr) bool { return slices.ContainsFunc(p.Prefixes, inPrefix(a)) }
