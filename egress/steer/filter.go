package steer

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/egret-router/egret/egress/nat"
)

// Priorities of the base chains, as numbers because that is how nft lists them. The
// first is before the gateway's (raw), so that a mark of ours never reaches it; the
// translation is before anybody's masquerade (100) and the gateway's own (95).
const (
	priorityClassify  = -310
	priorityKeep      = -150
	priorityForward   = -150
	priorityTranslate = 90
	priorityUnmark    = 310
)

// Names of objects that are there once.
const (
	chainClassify = "classify"
	chainKeep     = "keep"
	chainForward  = "forward"
	chainIdentity = "identity"
	chainUnmark   = "unmark"
	chainUnknown  = "unknown"
	chainBlocked  = "blocked"
	chainNothing  = "nothing"
	setWays       = "ways"
	setInside4    = "inside4"
	setInside6    = "inside6"
	setPods4      = "pods4"
	setPods6      = "pods6"
	mapClients4   = "clients4"
	mapClients6   = "clients6"
	mapTakes      = "takes"
	mapPuts       = "puts"

	counterUnknown = "drop_unknown"
	counterBlocked = "drop_blocked"
	counterNothing = "drop_no_gateway"
	counterLost    = "drop_lost"
	counterLeak    = "drop_leak"
	counterInbound = "drop_inbound"
)

// never are destinations that no gateway can have: this host, links, groups.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// isLocal lets by what is for this node's own addresses.
const isLocal = "fib daddr type { local, broadcast, anycast, multicast } return"

func drop(counter string) string { return fmt.Sprintf("counter name %q drop", counter) }

// filter is the packet filter. How a packet of a pod goes through it:
//
//	prerouting raw-10  classify  source -> policy -> longest destination -> mark of a set
//	prerouting mangle  keep      flows keep the set they began with; drops happen here,
//	                             so that replies to who asked from outside are spared
//	forward    mangle  forward   nothing marked leaves but by the tunnel, by which pods get
//	                             answers only; MSS
//	postrouting nat    identity  bound to no translation before anybody translates it
//	postrouting last   unmark    the tunnel looks its own way up with the mark of what is
//	                             inside: without this it would lead into itself, and the
//	                             replies of a gateway here into its return table
func (d *decider) filter(sets []Set) nat.Ruleset {
	r := nat.NewRuleset(TableName)
	for _, c := range []string{counterUnknown, counterBlocked, counterNothing, counterLost, counterLeak, counterInbound} {
		r.Counters[c] = true
	}
	t := d.cfg.Tunnel
	ways := nat.Set{Key: "ifname", Elements: map[string]string{}}
	for _, device := range []string{t.Device, t.Loop, PeerOf(t.Loop)} {
		ways.Elements[nat.DeviceKey(device)] = ""
	}
	r.Sets[setWays] = ways
	d.classify(r)
	d.keep(r, sets)
	d.leave(r)
	return r
}

func (d *decider) classify(r nat.Ruleset) {
	inside := append(append([]netip.Prefix{}, never...), d.cfg.Inside...)
	r.Sets[setInside4], r.Sets[setInside6] = nat.AddressSet(inside, true), nat.AddressSet(inside, false)
	r.Sets[mapClients4], r.Sets[mapClients6] = nat.AddressMap(d.clients(), true), nat.AddressMap(d.clients(), false)
	r.AddChain(chainClassify, nat.Base{Type: "filter", Hook: "prerouting", Priority: priorityClassify, Policy: "accept"},
		"iifname @"+setWays+" "+d.marks.clear()+" return",
		d.marks.are("meta")+" "+d.marks.clear(), // nobody may bring in a mark of ours
		"ip daddr @"+setInside4+" return",
		"ip6 daddr @"+setInside6+" return",
		"ip saddr vmap @"+mapClients4,
		"ip6 saddr vmap @"+mapClients6)
	// This node's own addresses are asked for here, behind the sources, so that it costs
	// nobody else anything.
	r.AddChain(chainUnknown, nat.Base{}, isLocal, d.marks.put("meta", d.marks.unknown))
	r.AddChain(chainBlocked, nat.Base{}, isLocal, d.marks.put("meta", d.marks.blocked))
	r.AddChain(chainNothing, nat.Base{}, d.marks.put("meta", d.marks.nothing))
	for _, p := range d.rules {
		made := d.memo.policy(p, d.marks)
		d.made.policies[p.name] = made
		maps.Copy(r.Sets, made.maps)
		r.Chains[policyName(p.name)] = made.chain
	}
	d.spreadChains(r)
}

func policyName(name string) string { return nat.ObjectName("policy_", name) }

// clients say which chain a source belongs to: that of its policy, none for those
// without a policy, that of the unknown for the rest of the node's pods.
func (d *decider) clients() []nat.Value {
	var out []nat.Value
	for _, p := range d.cfg.Local {
		out = append(out, nat.Value{Prefix: p, Value: "goto " + chainUnknown})
	}
	policies := map[string]bool{}
	for _, p := range d.rules {
		policies[p.name] = true
	}
	for _, c := range d.cfg.Clients {
		v := nat.Value{Prefix: netip.PrefixFrom(c.Address, c.Address.BitLen())}
		switch {
		case c.Blocked || c.Policy != "" && !policies[c.Policy]:
			v.Value = "goto " + chainBlocked
		case c.Policy != "":
			v.Value = "goto " + policyName(c.Policy)
		}
		out = append(out, v)
	}
	return out
}

// keep carries decisions out, where conntrack knows the flow.
func (d *decider) keep(r nat.Ruleset, sets []Set) {
	m, masked := d.marks, fmt.Sprintf("mark & %#x", d.marks.mask)
	texts := []string{m.not("meta") + " return",
		"ct direction reply " + m.clear() + " return",
		m.is(m.unknown) + " " + drop(counterUnknown),
		m.is(m.blocked) + " " + drop(counterBlocked),
		"ct " + masked + " vmap @" + mapTakes}
	for _, bit := range d.obs.Former { // they are no normal traffic, and where they went is not known any more
		texts = append(texts, fmt.Sprintf("%s ct mark & %#x != 0 %s", m.not("ct"), bit, drop(counterLost)))
	}
	r.AddChain(chainKeep, nat.Base{Type: "filter", Hook: "prerouting", Priority: priorityKeep, Policy: "accept"}, append(texts,
		// What began as normal traffic goes on as such when an edit steers it.
		m.not("ct")+" ct state established,related "+m.clear()+" return",
		m.is(m.nothing)+" "+drop(counterNothing),
		"meta "+masked+" vmap @"+mapPuts,
		// A flow of a set that is lost, to where no gateway leads any more: it must not
		// leave in another way, it is bound to its source.
		m.are("ct")+" "+drop(counterLost),
		m.clear())...)
	takes := nat.Set{Key: "mark", Value: "verdict", Elements: map[string]string{}}
	puts := nat.Set{Key: "mark", Value: "verdict", Elements: map[string]string{}}
	for _, s := range sets {
		n, made := strconv.Itoa(int(s.Number)), d.memo.set(s.Number, m)
		d.made.sets[s.Number] = made
		if !s.Lost {
			takes.Elements[nat.Mark(s.Mark)] = "goto take_" + n
			r.Chains["take_"+n] = made.take
		}
		if s.Active {
			puts.Elements[nat.Mark(s.Mark)] = "goto put_" + n
			r.Chains["put_"+n] = made.put
			r.Chains[setName(&s)] = made.choose
		}
	}
	r.Sets[mapTakes], r.Sets[mapPuts] = takes, puts
}

func setName(s *Set) string { return "set_" + strconv.Itoa(int(s.Number)) }

// leave is what happens on the way out.
func (d *decider) leave(r nat.Ruleset) {
	mss := func(family string, header int) []string {
		var out []string
		for _, way := range []string{"oifname", "iifname"} {
			out = append(out, fmt.Sprintf("meta nfproto %s %s @%s tcp flags & (syn | rst) == syn tcp option maxseg size set %d",
				family, way, setWays, d.cfg.Tunnel.MTU-header))
		}
		return out
	}
	pods := slices.Clone(d.cfg.Local)
	for _, c := range d.cfg.Clients {
		pods = append(pods, netip.PrefixFrom(c.Address, c.Address.BitLen()))
	}
	r.Sets[setPods4], r.Sets[setPods6] = nat.AddressSet(pods, true), nat.AddressSet(pods, false)
	ours := d.marks.are("meta")
	texts := []string{ours + " oifname != @" + setWays + " " + drop(counterLeak),
		// By the tunnel our pods get answers only.
		"iifname @" + setWays + " ct direction original ip daddr @" + setPods4 + " " + drop(counterInbound),
		"iifname @" + setWays + " ct direction original ip6 daddr @" + setPods6 + " " + drop(counterInbound),
	}
	texts = append(texts, mss("ipv4", 40)...)
	texts = append(texts, mss("ipv6", 60)...)
	r.AddChain(chainForward, nat.Base{Type: "filter", Hook: "forward", Priority: priorityForward, Policy: "accept"}, texts...)
	r.AddChain(chainIdentity, nat.Base{Type: "nat", Hook: "postrouting", Priority: priorityTranslate, Policy: "accept"},
		ours+" oifname @"+setWays+" snat ip to ip saddr",
		ours+" oifname @"+setWays+" snat ip6 to ip6 saddr")
	r.AddChain(chainUnmark, nat.Base{Type: "filter", Hook: "postrouting", Priority: priorityUnmark, Policy: "accept"},
		"oifname @"+setWays+" "+ours+" "+d.marks.clear()+" return",
		"oifname @"+setWays+" meta mark set 0") // a gateway's, whose packets have no other marks
}
