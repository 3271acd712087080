package nat

// usablePools are the pools of a network that is there, with an ID that no
// other pool has.
func usablePools(cfg Config) map[string]Pool {
	networks := map[string]bool{}
	for _, n := range cfg.Networks {
		networks[n.Name] = true
	}
	ids := map[uint16]int{}
	for _, p := range cfg.Pools {
		ids[p.ID]++
	}
	pools := map[string]Pool{}
	for _, p := range cfg.Pools {
		if networks[p.Network] && p.ID != 0 && uint32(p.ID)&^PoolMask == 0 && ids[p.ID] == 1 {
			pools[p.Name] = p
		}
	}
	return pools
}

// usableExits are the exits to a usable pool of their network, with a mark of
// ours that says so.
func usableExits(cfg Config, pools map[string]Pool) map[string]Exit {
	exits := map[string]Exit{}
	for _, e := range cfg.Exits {
		p, ok := pools[e.Pool]
		if ok && p.Network == e.Network && e.marked() && e.Mark&PoolMask == uint32(p.ID) {
			exits[e.Name] = e
		}
	}
	return exits
}

// marked says whether the mark is one that an exit can have.
func (e Exit) marked() bool {
	return e.Mark&EgressMark != 0 && e.Mark&hopSetMask != 0 && e.Mark&^(EgressMark|hopSetMask|PoolMask) == 0
}
