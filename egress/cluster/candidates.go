package cluster

// candidates says which gateways a rule leads to.
type candidates struct {
	lookup   *lookup
	gateways []Gateway
	// chosen are the places in gateways by selectors, as they print.
	chosen map[*target][]int
	same   map[string][]int
}

func newCandidates(s *Snapshot, l *lookup) *candidates {
	return &candidates{lookup: l, gateways: s.Gateways, chosen: map[*target][]int{}, same: map[string][]int{}}
}

// of are the gateways that t selects, as places in the Snapshot and in its order.
func (c *candidates) of(t *target) []int {
	if chosen, known := c.chosen[t]; known {
		return chosen
	}
	key := t.text()
	chosen, known := c.same[key]
	if !known {
		for i := range c.gateways {
			g := &c.gateways[i]
			if t.selector.Matches(g.labels()) && t.namespaces.MatchesNamespace(c.lookup.namespace(g.Namespace)) {
				chosen = append(chosen, i)
			}
		}
		c.same[key] = chosen
	}
	c.chosen[t] = chosen
	return chosen
}

// text is the same for targets that select the same, whatever their bounds.
func (t *target) text() string { return t.selector.String() + "\x00" + t.namespaces.String() }

// at is the instance of g on a node, or nil.
func (g *Gateway) at(node string) *Instance {
	for i := range g.Instances {
		if g.Instances[i].Node == node {
			return &g.Instances[i]
		}
	}
	return nil
}

// draining says whether the instance is to take no new flows. Deletion counts
// before the controller has noted it: it may be down.
func (g *Gateway) draining(i *Instance) bool { return !i.Draining.IsZero() || !g.Deleted.IsZero() }
