package nat

import (
	"fmt"
	"net/netip"
	"slices"
)

// Priorities of the base chains, as numbers because that is how nft lists them.
const (
	priorityRaw       = -300
	priorityMangle    = -150
	priorityForward   = -1  // before filter, where others accept
	priorityFast      = 10  // after filter: what others drop is not offloaded
	priorityTranslate = 95  // before srcnat: the first NAT chain to bind a flow wins
	priorityUplink    = 110 // after srcnat: sees the translated packet
)

// Render gives the whole table for cfg. It is pure and does not depend on the
// order of the slices in cfg.
//
// How a packet goes through it (D: discarded there):
//
//	prerouting raw     classify    client: policy, destination -> mark and reply zone,
//	                               a spread choosing by the client's address
//	                               uplink: zone, or untracked if it is for this node
//	prerouting mangle  keep        client: decisions D, the flow's own mark
//	                               uplink: replies get ReturnMark
//	output raw         output_raw  this node's own traffic to uplinks is untracked
//	forward            guard_forward  D: new flows from uplinks, invalid packets
//	                   fast        established flows to the flowtable, if there is one
//	postrouting        translate   pool address by client and mark; D without one
//	postrouting        guard_uplink   D: any source that is not this network's
func Render(cfg Config) Ruleset { return render(cfg, bucketCount) }

// render renders with a choice of the number of buckets for a number of
// addresses.
func render(cfg Config, buckets func(int) int) Ruleset { return newRenderer(buckets).Render(cfg) }

// Render renders as the function Render does, and shares with earlier results
// what is the same.
func (cache *Renderer) Render(cfg Config) Ruleset {
	cache.pools, cache.lastPools = map[string]Set{}, cache.pools
	r := renderer{cfg: cfg, out: emptyRuleset(2 * len(cfg.Policies)), buckets: cache.count, cache: cache}
	r.pools = usablePools(cfg)
	r.exits = usableExits(cfg, r.pools)
	r.spreads = spreadCodes(cfg.Spreads)
	r.guards()
	r.entries()
	r.clients()
	r.policies()
	r.spread()
	r.decisions()
	r.fastPath()
	r.translation()
	r.output()
	return r.out
}

type renderer struct {
	cfg     Config
	out     Ruleset
	pools   map[string]Pool // by name, those that can be translated to
	exits   map[string]Exit // by name, those that traffic can take
	spreads map[string]uint32
	buckets func(int) int
	cache   *Renderer
}

func (r *renderer) chain(name string, texts ...string) {
	r.out.Chains[name] = Chain{Lines: lines(texts...)}
}

func (r *renderer) base(name, kind, hook string, priority int, texts ...string) {
	r.out.Chains[name] = Chain{Base: Base{kind, hook, priority, "accept"}, Lines: lines(texts...)}
}

// set declares a set or map and gives its elements to fill in.
func (r *renderer) set(name, key, value string, interval bool) map[string]string {
	elements := map[string]string{}
	r.out.Sets[name] = Set{Key: key, Value: value, Interval: interval, Elements: elements}
	return elements
}

// drop is the end of a rule that discards and counts.
func (r *renderer) drop(counter string) string { return r.count(counter) + " drop" }

func (r *renderer) count(counter string) string {
	r.out.Counters[counter] = true
	return fmt.Sprintf("counter name %q", counter)
}

// mark is an element of a set of marks.
func mark(m uint32) string { return fmt.Sprintf("0x%08x", m) }

// ourMark is the expression for our part of the packet mark.
var ourMark = "meta mark & " + mark(MarkMask)

// clearMark is the statement that takes our bits off the packet.
var clearMark = "meta mark set meta mark & " + mark(^MarkMask)

// setMark is the statement that sets our part of the packet mark to m. nft
// wants the bits it sets taken away first in one constant.
func setMark(m uint32) string {
	return fmt.Sprintf("meta mark set meta mark & %s | %s", mark(^MarkMask), mark(m))
}

// ports gives the devices of a network by which traffic can leave, sorted.
func (n Network) ports() []string {
	return slices.Compact(slices.Sorted(slices.Values(n.Ports)))
}

// devices gives the ports and the VRF device.
func (n Network) devices() []string {
	if n.Device == "" {
		return n.ports()
	}
	return append(n.ports(), n.Device)
}

// entries are the two hooks every packet passes on its way in.
func (r *renderer) entries() {
	raw := r.set(mapRaw, "ifname", "verdict", false)
	mangle := r.set(mapMangle, "ifname", "verdict", false)
	for _, dev := range r.cfg.ClientInterfaces {
		raw[deviceKey(dev)] = "goto " + chainClients
		mangle[deviceKey(dev)] = "goto " + chainKeepCli
	}
	for _, n := range r.cfg.Networks {
		chain := objectName(prefixUplink, n.Name)
		for _, port := range n.ports() {
			raw[deviceKey(port)] = "goto " + chain
			mangle[deviceKey(port)] = "goto " + chainKeepUp
		}
		// A packet passes prerouting twice, as the port's and as the VRF device's.
		// All of it is done in the first pass, and must not be done in the second:
		// there fib does not find the port's address, and ct zone set would take the
		// packet back to conntrack (hence also the accept). Without "iif" fib never
		// finds addresses of a VRF.
		// What is for a pool is for no address of this node: it needs no fib.
		zone := fmt.Sprintf("ct zone set %d", n.Zone)
		texts := []string{clearMark}
		for _, f := range []struct {
			ip, set string
			spans   []span
		}{{"ip", objectName(prefixUplink4, n.Name), covering(only4(n.Sources))}, {"ip6", objectName(prefixUplink6, n.Name), covering(only6(n.Sources))}} {
			if len(f.spans) > 0 {
				r.spans(f.set, f.spans, f.ip == "ip")
				texts = append(texts, f.ip+" daddr @"+f.set+" "+zone+" accept")
			}
		}
		r.chain(chain, append(texts, "fib daddr . iif type local notrack accept", zone)...)
	}
	r.base(chainClassify, "filter", "prerouting", priorityRaw, "iifname vmap @"+mapRaw)
	r.base(chainKeep, "filter", "prerouting", priorityMangle, "iifname vmap @"+mapMangle)
	r.keep()
}

// keep decides after conntrack, when the direction of a packet and the history
// of its flow are known.
//
//   - Replies of clients to connections from outside were classified like
//     anything else; they go back the way they came, normally.
//   - Drop and reject act at once, also on flows that are established.
//   - A flow that left by an exit stays with it, whatever policies say now, also
//     if the exit is gone (then the guard drops it).
//   - A flow that was there before and is not translated stays where it is:
//     nothing could translate it any more.
//   - A TCP connection that we know nothing of is past its beginning, where the
//     zone of its replies was to be set (see decisions). It cannot work; the
//     client is told, so that it connects anew.
//   - What is left of an exit that takes no new flows is a new flow.
func (r *renderer) keep() {
	r.chain(chainKeepCli,
		"ct direction reply "+clearMark+" accept",
		fmt.Sprintf("%s vmap { %s : goto %s, %s : goto %s, %s : goto %s }", ourMark,
			mark(markDrop), chainDenyDrop, mark(markReject), chainDenyReject, mark(markUnmatched), chainDenyUnmatched),
		fmt.Sprintf("ct mark & %s != 0 meta mark set ct mark accept", mark(EgressMark)),
		"ct status & confirmed != 0 "+clearMark+" accept",
		fmt.Sprintf("meta mark & %s != 0 ct state new %s %s %s", mark(EgressMark), tcpNotFirst, r.count(counterMidstream), r.refuse("tcp reset")),
		fmt.Sprintf("%s vmap { %s : goto %s, %s : goto %s }", ourMark, mark(markRefuseDrop), chainDenyNewDrop, mark(markRefuseReject), chainDenyNewReject))
	var texts []string
	if r.cfg.ReturnMark != 0 {
		texts = append(texts, fmt.Sprintf("ct direction reply ct mark & %s != 0 %s", mark(EgressMark), setMark(r.cfg.ReturnMark)))
	}
	r.chain(chainKeepUp, texts...)
}

// neverClassified are destinations no policy is asked about, besides the
// clients' own prefixes and the addresses of this node.
var neverClassified = []string{
	"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
	"::/127", "fe80::/10", "ff00::/8",
}

// NeverClassified are the destinations that no policy is asked about, besides
// the clients' own prefixes and the addresses of this node.
func NeverClassified() []netip.Prefix {
	out := make([]netip.Prefix, 0, len(neverClassified))
	for _, text := range neverClassified {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// clients is what a packet of a client goes through before conntrack. All that a
// policy leads to returns here, for what may be a spread.
func (r *renderer) clients() {
	exempt := slices.Clone(r.cfg.ClientPrefixes)
	exempt = append(exempt, NeverClassified()...)
	r.spans(setExempt4, covering(only4(exempt)), true)
	r.spans(setExempt6, covering(only6(exempt)), false)
	r.clientMaps()
	r.chain(chainClients,
		clearMark,
		"ip daddr @"+setExempt4+" return",
		"ip6 daddr @"+setExempt6+" return",
		"fib daddr type { local, broadcast, anycast, multicast } return",
		"ip saddr vmap @"+mapClients4,
		"ip6 saddr vmap @"+mapClients6,
		ourMark+" vmap @"+mapSpreads)
}

// clientPieces say where the clients of one family go, within ClientPrefixes.
func (r *renderer) clientPieces(family func([]netip.Prefix) []netip.Prefix) []piece {
	var bindings []binding
	for _, p := range r.cfg.Policies {
		for _, client := range family(p.Clients) {
			bindings = append(bindings, binding{client, "jump " + objectName(prefixPolicy, p.Name)})
		}
	}
	allowed := covering(family(r.cfg.ClientPrefixes))
	pieces := within(disjoint(bindings), allowed)
	if r.cfg.DropUnmatched {
		pieces = fill(pieces, allowed, "goto "+chainDecideUnmatched)
	}
	return pieces
}

// policies are a chain for each policy, with a map for each family that it has
// destinations of. Skipped destinations have no element: the packet falls
// through to the end and is routed normally.
func (r *renderer) policies() {
	seen := make(map[string]*renderedPolicy, len(r.cfg.Policies))
	verdict := remember(r.verdict)
	for _, p := range r.cfg.Policies {
		done := r.cache.policies[p.Name]
		if done == nil || !done.fits(p.Rules, verdict) {
			done = renderPolicy(p, verdict)
		}
		seen[p.Name] = done
		done.addTo(r.out)
	}
	r.cache.policies = seen
}

// verdict is where a rule sends its traffic; an exit that cannot be taken, or a
// name that is neither an exit's nor a spread's, drops.
func (r *renderer) verdict(rule Rule) string {
	switch rule.Action {
	case Skip:
		return ""
	case ToExit:
		if _, ok := r.exits[rule.Exit]; ok {
			return "goto " + objectName(prefixExit, rule.Exit)
		}
		if _, ok := r.spreads[rule.Exit]; ok {
			return "goto " + objectName(prefixSpread, rule.Exit)
		}
		return "goto " + chainDecideDrop
	case Reject:
		return "goto " + chainDecideReject
	default:
		return "goto " + chainDecideDrop
	}
}

// tcpNotFirst matches TCP segments that do not begin a connection.
const tcpNotFirst = "tcp flags & (syn | ack) != syn"

// withoutBeginning matches what tells nothing of being the first of a flow.
const withoutBeginning = "meta l4proto udp "

// decisions are the ends of classification: they mark the packet. For an exit
// the zone of the replies is set too (by a chain per network, since exits are
// many), which must be before conntrack sees the
// flow's first packet. With that zone conntrack does not find a flow of which
// the packet is itself a reply, so it is not set where the packet is sure not
// to be the first of a flow. With UDP one cannot tell: a client's answers to
// datagrams from the normal side need a rule that skips their destination. An
// exit in fallback does nothing: the packet has no mark of ours at this point. One
// that takes no new flows leaves a reserved mark, for which the mangle hook, where
// the history of the flow is known, discards what is new.
func (r *renderer) decisions() {
	for _, n := range r.cfg.Networks {
		zone := fmt.Sprintf("ct reply zone set %d", n.Zone)
		r.chain(objectName(prefixZone, n.Name),
			withoutBeginning+zone+" return",
			tcpNotFirst+" return",
			"icmp type echo-reply return",
			"icmpv6 type echo-reply return",
			zone)
	}
	for _, e := range r.exits {
		if e.Fallback {
			r.chain(objectName(prefixExit, e.Name))
			continue
		}
		if e.Refuse == Drop || e.Refuse == Reject {
			r.chain(objectName(prefixExit, e.Name), setMark(map[Action]uint32{Drop: markRefuseDrop, Reject: markRefuseReject}[e.Refuse]))
			continue
		}
		r.chain(objectName(prefixExit, e.Name), setMark(e.Mark), "goto "+objectName(prefixZone, e.Network))
	}
	r.chain(chainDecideDrop, setMark(markDrop))
	r.chain(chainDecideReject, setMark(markReject))
	r.chain(chainDecideUnmatched, setMark(markUnmatched))
	r.chain(chainDenyDrop, r.drop(counterDrop))
	r.chain(chainDenyUnmatched, r.drop(counterUnmatched))
	r.chain(chainDenyReject,
		"meta l4proto tcp "+r.count(counterReject)+" "+r.refuse("tcp reset"),
		r.count(counterReject)+" "+r.refuse("icmpx admin-prohibited"))
	r.chain(chainDenyNewDrop, r.drop(counterNew))
	// As the kernel answers for a network that is down.
	r.chain(chainDenyNewReject, r.count(counterNew)+" "+r.refuse("icmpx admin-prohibited"))
}

// refuse tells a client, where that can be done (see Config.Silent).
func (r *renderer) refuse(how string) string {
	if r.cfg.Silent {
		return "drop"
	}
	return "reject with " + how
}

// output keeps this node's own traffic to uplinks (BGP, probes) out of
// conntrack. Output is passed twice, with the VRF device and then the port;
// both match, and the kernel forgets the first (6.1: vrf_nf_reset_ct). ICMP
// errors about the packets of a flow are born with the flow attached
// (icmp_glue_bits), so notrack passes them by and they quote the pool's
// address, not the client's.
func (r *renderer) output() {
	r.base(chainOutput, "filter", "output", priorityRaw, "oifname @"+setUplinks+" notrack")
}

// spans fills a set of intervals.
func (r *renderer) spans(name string, spans []span, ipv4 bool) {
	elements := r.set(name, addrType(ipv4), "", true)
	for _, s := range spans {
		elements[s.String()] = ""
	}
}

func addrType(ipv4 bool) string {
	if ipv4 {
		return "ipv4_addr"
	}
	return "ipv6_addr"
}

func only4(prefixes []netip.Prefix) []netip.Prefix {
	return keepPrefixes(prefixes, func(p netip.Prefix) bool { return p.IsValid() && p.Addr().Is4() })
}

func only6(prefixes []netip.Prefix) []netip.Prefix {
	return keepPrefixes(prefixes, func(p netip.Prefix) bool { return p.IsValid() && !p.Addr().Is4() })
}

func keepPrefixes(prefixes []netip.Prefix, keep func(netip.Prefix) bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if keep(p) {
			out = append(out, p)
		}
	}
	return out
}
