package steer

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress/nat"
)

// policyChain is a policy with where its destinations go.
type policyChain struct {
	name         string
	destinations []nat.Value
}

// spread is a choice for the clients of bounded rules: a chain, and maps from clients to
// the chains of their sets. The maps are also the memory of the choice.
type spread struct {
	name     string
	gateways []string // as the rules have them
	usable   []string
	bound    int
	of       map[string]bool // policies
	clients  []pod
	verdicts map[netip.Addr]string
}

// pod is a client with all its addresses.
type pod []netip.Addr

const (
	prefixSpread  = "spread_"
	prefixChoose4 = "choose4_"
	prefixChoose6 = "choose6_"
)

// chooseName is the map of one family.
func chooseName(name string, ipv4 bool) string {
	if ipv4 {
		return prefixChoose4 + name
	}
	return prefixChoose6 + name
}

// policies works out where each rule leads, and which choices there are to make.
func (d *decider) policies() {
	d.spreads = map[string]*spread{}
	pods := podsOf(d.cfg.Clients)
	seen := map[string]bool{}
	for _, p := range d.cfg.Policies {
		if seen[p.Name] {
			d.problems = append(d.problems, fmt.Sprintf("policy %q is there twice: the first counts", p.Name))
			continue
		}
		seen[p.Name] = true
		chain := policyChain{name: p.Name}
		rules := slices.SortedStableFunc(slices.Values(p.Rules), func(a, b Rule) int { return a.Destination.Compare(b.Destination) })
		for _, rule := range rules {
			if rule.Destination.IsValid() {
				chain.destinations = append(chain.destinations, nat.Value{Prefix: rule.Destination.Masked(), Value: d.verdict(p.Name, rule, pods[p.Name])})
			}
		}
		d.rules = append(d.rules, chain)
	}
}

// podsOf are the pods of each policy, in the order of clients.
func podsOf(clients []Client) map[string][]pod {
	out := map[string][]pod{}
	type key struct{ policy, pod string }
	at := map[key]int{}
	for _, c := range clients {
		if c.Blocked || c.Policy == "" || !c.Address.IsValid() || c.Address.Is4In6() {
			continue
		}
		k := key{c.Policy, c.Pod}
		i, known := at[k]
		if c.Pod == "" || !known {
			at[k] = len(out[c.Policy])
			out[c.Policy] = append(out[c.Policy], pod{c.Address})
			continue
		}
		out[c.Policy][i] = append(out[c.Policy][i], c.Address)
	}
	return out
}

// verdict is where a rule leads.
func (d *decider) verdict(policy string, r Rule, clients []pod) string {
	if r.Skip {
		return ""
	}
	usable := d.usable(r)
	if len(usable) == 0 {
		return "goto " + chainNothing
	}
	if r.MaxNextHops <= 0 {
		return d.gotoSet(slices.Sorted(slices.Values(usable)))
	}
	s := d.spread(r, usable)
	if !s.of[policy] {
		s.of[policy] = true
		s.clients = append(s.clients, clients...)
	}
	return "goto " + prefixSpread + s.name
}

// spread finds or makes the choice that a rule asks for. One that is within its bound is
// a choice as well: its clients must be known when there are more gateways.
func (d *decider) spread(r Rule, usable []string) *spread {
	gateways := slices.Compact(slices.Sorted(slices.Values(r.Gateways)))
	how := fmt.Sprint("\x00", r.MaxNextHops, r.PreferLocal)
	key := "gateways " + strings.Join(gateways, "\x00") + how
	if r.Target != "" {
		if s := d.spreads[hex("target "+r.Target+how)]; s == nil || slices.Equal(s.gateways, gateways) {
			key = "target " + r.Target + how
		} // else one target means two things: each is known by what it means
	}
	name := hex(key)
	s := d.spreads[name]
	if s == nil {
		s = &spread{name: name, gateways: gateways, usable: usable, bound: r.MaxNextHops, of: map[string]bool{}, verdicts: map[netip.Addr]string{}}
		d.spreads[name] = s
	}
	return s
}

func (d *decider) gotoSet(members []string) string {
	s, ok := d.set(members)
	if !ok {
		const text = "there are more sets of gateways than numbers: some destinations are closed"
		if !slices.Contains(d.problems, text) {
			d.problems = append(d.problems, text)
		}
		return "goto " + chainNothing
	}
	return "goto " + setName(s)
}

// choices makes them all, and then the sets that no client has yet, as far as there are
// numbers: so a client that comes costs an element.
func (d *decider) choices() {
	past := d.past()
	var idle [][]string
	for _, name := range slices.Sorted(maps.Keys(d.spreads)) {
		s := d.spreads[name]
		slices.SortFunc(s.clients, func(a, b pod) int { return a[0].Compare(b[0]) })
		had, now := past.of(s)
		turn := d.cfg.Turn + int(hash64(name)%(1<<16))
		c := choose(s.usable, s.bound, turn, had, now)
		verdicts := make([]string, len(c.options))
		for i, o := range c.options {
			if members := c.members(i); o.users == 0 {
				idle = append(idle, members)
			} else {
				verdicts[i] = d.gotoSet(members)
			}
		}
		for client, option := range c.of {
			for _, a := range s.clients[client] {
				s.verdicts[a] = verdicts[option]
			}
		}
		for place, n := range c.load {
			d.gateways[c.ring[place]].Clients += n
		}
	}
	for _, members := range idle {
		d.set(members)
	}
}

// past is what the kernel knows of choices.
type past struct {
	choices map[string]map[string]string
	// sets are the gateways of the kernel's sets, by verdict; "" is one that is not
	// known any more.
	sets map[string][]string
	// others are the maps of choices that are not there any more, and behind them
	// all: an edited rule finds its clients' gateways there.
	others []string
}

func (d *decider) past() *past {
	p := &past{choices: d.obs.Choices, sets: map[string][]string{}}
	if len(p.choices) == 0 {
		return p
	}
	byMarker := make(map[netip.Addr]string, len(d.gateways))
	for id := range d.gateways {
		byMarker[markerOf(id)] = id
	}
	for _, k := range d.obs.Sets {
		var members []string
		for _, m := range k.Markers {
			members = append(members, byMarker[m])
		}
		p.sets["goto "+setName(&Set{Number: k.Number})] = members
	}
	var live []string
	for _, name := range slices.Sorted(maps.Keys(p.choices)) {
		if key := strings.TrimPrefix(strings.TrimPrefix(name, prefixChoose4), prefixChoose6); d.spreads[key] == nil {
			p.others = append(p.others, name)
		} else {
			live = append(live, name)
		}
	}
	p.others = append(p.others, live...)
	return p
}

// of says what the clients of s have had: the sets, and which of them each has.
func (p *past) of(s *spread) (had [][]string, now []int) {
	index := map[string]int{}
	now = make([]int, len(s.clients))
	_, known4 := p.choices[chooseName(s.name, true)]
	_, known6 := p.choices[chooseName(s.name, false)]
	for i, client := range s.clients {
		now[i] = -1
		verdict := p.find(s, client)
		if verdict == "" && !known4 && !known6 {
			verdict = p.elsewhere(s, client)
		}
		if verdict == "" {
			continue
		}
		at, ok := index[verdict]
		if !ok {
			at = len(had)
			index[verdict] = at
			had = append(had, p.sets[verdict])
		}
		now[i] = at
	}
	return had, now
}

// find is what one of a client's addresses has in the maps of its choice, "" if that is
// no set of the kernel's.
func (p *past) find(s *spread, client pod) string {
	for _, a := range client {
		verdict := p.choices[chooseName(s.name, a.Is4())][a.String()]
		if _, ok := p.sets[verdict]; ok {
			return verdict
		}
	}
	return ""
}

// elsewhere is what has the most of the gateways that s can use.
func (p *past) elsewhere(s *spread, client pod) string {
	best, most := "", 0
	for _, name := range p.others {
		for _, a := range client {
			verdict := p.choices[name][a.String()]
			n := 0
			for _, id := range p.sets[verdict] {
				if slices.Contains(s.usable, id) {
					n++
				}
			}
			if n > most {
				best, most = verdict, n
			}
		}
	}
	return best
}

// spreadChains are a chain for each choice, with maps from clients to sets.
func (d *decider) spreadChains(r nat.Ruleset) {
	for name, s := range d.spreads {
		maps4 := nat.Set{Key: "ipv4_addr", Value: "verdict", Elements: map[string]string{}}
		maps6 := nat.Set{Key: "ipv6_addr", Value: "verdict", Elements: map[string]string{}}
		for a, verdict := range s.verdicts {
			if a.Is4() {
				maps4.Elements[a.String()] = verdict
			} else {
				maps6.Elements[a.String()] = verdict
			}
		}
		r.Sets[chooseName(name, true)], r.Sets[chooseName(name, false)] = maps4, maps6
		r.AddChain(prefixSpread+name, nat.Base{},
			"ip saddr vmap @"+chooseName(name, true),
			"ip6 saddr vmap @"+chooseName(name, false),
			"goto "+chainNothing)
	}
}
