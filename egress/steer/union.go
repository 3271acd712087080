package steer

import "github.com/egret-router/egret/vrf"

// union is want with those routing objects that are there and that it does not have.
func union(have, want vrf.Config) vrf.Config {
	out := want
	hops := map[vrf.NextHopID]bool{}
	for _, h := range want.NextHops {
		hops[h.ID] = true
	}
	groups := map[vrf.NextHopID]bool{}
	for _, g := range want.Groups {
		groups[g.ID] = true
	}
	out.NextHops, out.Groups = clip(want.NextHops), clip(want.Groups)
	for _, h := range have.NextHops {
		if !hops[h.ID] {
			hops[h.ID] = true
			out.NextHops = append(out.NextHops, h)
		}
	}
	for _, g := range have.Groups {
		if !groups[g.ID] {
			out.Groups = append(out.Groups, g)
		}
	}
	type key struct {
		table  vrf.TableID
		prefix string
		metric uint32
	}
	routes := map[key]bool{}
	out.Routes, out.Rules = clip(want.Routes), clip(want.Rules)
	for _, r := range want.Routes {
		routes[key{r.Table, r.Prefix.String(), r.Metric}] = true
	}
	for _, r := range have.Routes {
		if !routes[key{r.Table, r.Prefix.String(), r.Metric}] {
			out.Routes = append(out.Routes, r)
		}
	}
	rules := map[vrf.Rule]bool{}
	for _, r := range want.Rules {
		rules[r] = true
	}
	for _, r := range have.Rules {
		if !rules[r] {
			out.Rules = append(out.Rules, r)
		}
	}
	return out
}

func clip[T any](s []T) []T { return s[:len(s):len(s)] }
