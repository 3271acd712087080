package nat

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

// Renderer renders one configuration after the other, and does again only what
// changed: an edit of one policy costs that policy, and a comparison of the
// others. Its results equal those of the function Render. They share memory
// with each other, by which Diff sees at once what is the same, so they are
// immutable as every Ruleset is.
//
// It keeps copies of what it compares: the caller may change a Config
// afterwards. It is not for use by several goroutines at the same time.
type Renderer struct {
	count    func(int) int
	policies map[string]*renderedPolicy
	clients  renderedClients
	// pools are bucket maps by their addresses: of this call, and of the last.
	pools, lastPools map[string]Set
}

// NewRenderer returns a Renderer that has rendered nothing yet.
func NewRenderer() *Renderer { return newRenderer(bucketCount) }

func newRenderer(count func(int) int) *Renderer { return &Renderer{count: count} }

// target is what the verdict of a rule depends on besides the rest of the
// configuration.
type target struct {
	action Action
	exit   string
}

// remember asks verdict once for each target.
func remember(verdict func(Rule) string) func(Rule) string {
	known := map[target]string{}
	return func(rule Rule) string {
		t := target{rule.Action, rule.Exit}
		value, ok := known[t]
		if !ok {
			value = verdict(rule)
			known[t] = value
		}
		return value
	}
}

// renderedPolicy is a policy's chain and maps, and what they came from.
type renderedPolicy struct {
	rules    []Rule
	verdicts map[target]string

	name  string // of the chain
	chain Chain
	sets  map[string]Set
}

// fits says whether rendering these rules would give the same again: the rules
// are the same, and so is what has become of the exits they name.
func (p *renderedPolicy) fits(rules []Rule, verdict func(Rule) string) bool {
	if !slices.Equal(p.rules, rules) {
		return false
	}
	for t, was := range p.verdicts {
		if verdict(Rule{Action: t.action, Exit: t.exit}) != was {
			return false
		}
	}
	return true
}

func renderPolicy(p Policy, verdict func(Rule) string) *renderedPolicy {
	out := &renderedPolicy{
		rules: slices.Clone(p.Rules), verdicts: map[target]string{},
		name: objectName(prefixPolicy, p.Name), sets: map[string]Set{},
	}
	var b4, b6 []binding
	for _, rule := range p.Rules {
		t := target{rule.Action, rule.Exit}
		value, ok := out.verdicts[t]
		if !ok {
			value = verdict(rule)
			out.verdicts[t] = value
		}
		b := binding{rule.Destination, value}
		if rule.Destination.Addr().Is4() {
			b4 = append(b4, b)
		} else if rule.Destination.IsValid() {
			b6 = append(b6, b)
		}
	}
	var texts []string
	if len(b4) > 0 {
		name := objectName(prefixDst4, p.Name)
		out.sets[name] = verdictMap(disjoint(b4), true)
		texts = append(texts, "ip daddr vmap @"+name)
	}
	if len(b6) > 0 {
		name := objectName(prefixDst6, p.Name)
		out.sets[name] = verdictMap(disjoint(b6), false)
		texts = append(texts, "ip6 daddr vmap @"+name)
	}
	out.chain = Chain{Lines: lines(texts...)}
	return out
}

func (p *renderedPolicy) addTo(r Ruleset) {
	r.Chains[p.name] = p.chain
	maps.Copy(r.Sets, p.sets)
}

// verdictMap is a map from addresses to verdicts.
func verdictMap(pieces []piece, ipv4 bool) Set {
	s := Set{Key: addrType(ipv4), Value: "verdict", Interval: true, Elements: make(map[string]string, len(pieces))}
	for _, p := range pieces {
		s.Elements[p.span.String()] = p.value
	}
	return s
}

// renderedClients are the maps from clients to policies, and what they came
// from.
type renderedClients struct {
	prefixes []netip.Prefix
	drop     bool
	policies []Policy // without rules

	clients4, clients6 Set
}

// clientMaps puts in the maps from clients to policies.
func (r *renderer) clientMaps() {
	c := &r.cache.clients
	if !c.fits(r.cfg) {
		*c = renderedClients{
			prefixes: slices.Clone(r.cfg.ClientPrefixes),
			drop:     r.cfg.DropUnmatched,
			policies: make([]Policy, 0, len(r.cfg.Policies)),
			clients4: verdictMap(r.clientPieces(only4), true),
			clients6: verdictMap(r.clientPieces(only6), false),
		}
		for _, p := range r.cfg.Policies {
			c.policies = append(c.policies, Policy{Name: p.Name, Clients: slices.Clone(p.Clients)})
		}
	}
	r.out.Sets[mapClients4], r.out.Sets[mapClients6] = c.clients4, c.clients6
}

func (c *renderedClients) fits(cfg Config) bool {
	return c.clients4.Elements != nil && c.drop == cfg.DropUnmatched && slices.Equal(c.prefixes, cfg.ClientPrefixes) &&
		slices.EqualFunc(c.policies, cfg.Policies, func(a, b Policy) bool {
			return a.Name == b.Name && slices.Equal(a.Clients, b.Clients)
		})
}

// bucketSet is the map of a pool: from bucket to address. It is kept as long as
// each Render wants it, since Buckets is dear for large pools (see Pool).
func (cache *Renderer) bucketSet(addrs []netip.Addr, n int, ipv4 bool) Set {
	key := strconv.AppendInt(nil, int64(n), 10)
	for _, a := range addrs {
		bytes := a.As16()
		key = append(key, bytes[:]...)
	}
	s, ok := cache.pools[string(key)]
	if !ok {
		s, ok = cache.lastPools[string(key)]
	}
	if !ok {
		s = Set{Key: "integer", Value: addrType(ipv4), Elements: make(map[string]string, n)}
		for i, a := range Buckets(addrs, n) {
			s.Elements[strconv.Itoa(i)] = addrText(a)
		}
	}
	cache.pools[string(key)] = s
	return s
}
