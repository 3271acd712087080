package nat

import "net/netip"

// What follows is for packages that keep a table of their own with the planner of
// this one: they build Rulesets, and Diff, Table and its Watch do the rest.

// NewRuleset is an empty table of the given name.
func NewRuleset(table string) Ruleset {
	r := newRuleset()
	r.Table = table
	return r
}

// AddChain puts in a chain of these rules, in nft's words and without comments. It is
// a base chain unless base is the zero Base.
func (r Ruleset) AddChain(name string, base Base, rules ...string) {
	r.Chains[name] = NewChain(base, rules...)
}

// NewChain is what AddChain puts in. It may be in several Rulesets, which Diff then sees
// at once.
func NewChain(base Base, rules ...string) Chain { return Chain{Base: base, Lines: lines(rules...)} }

// Mark is a mark as the element of a set of type mark.
func Mark(m uint32) string { return mark(m) }

// DeviceKey is a device as the element of a set of type ifname. It panics on what is
// no device name, see Config.
func DeviceKey(name string) string { return deviceKey(name) }

// ObjectName is a name for the object of something that a user named.
func ObjectName(prefix, name string) string { return objectName(prefix, name) }

// Value gives the addresses of a prefix a value in a map or, with "in", membership of
// a set. "" is a hole.
type Value struct {
	Prefix netip.Prefix
	Value  string
}

// AddressMap is a map from the addresses of one family to verdicts, the longest
// prefix counts; those of the other family are left out.
func AddressMap(values []Value, ipv4 bool) Set {
	return verdictMap(disjoint(bindingsOf(values, ipv4)), ipv4)
}

// AddressSet is the set of the addresses of one family in prefixes.
func AddressSet(prefixes []netip.Prefix, ipv4 bool) Set {
	s := Set{Key: addrType(ipv4), Interval: true, Elements: map[string]string{}}
	family := only6
	if ipv4 {
		family = only4
	}
	for _, sp := range covering(family(prefixes)) {
		s.Elements[sp.String()] = ""
	}
	return s
}

func bindingsOf(values []Value, ipv4 bool) []binding {
	var out []binding
	for _, v := range values {
		if v.Prefix.IsValid() && v.Prefix.Addr().Is4() == ipv4 {
			out = append(out, binding{v.Prefix, v.Value})
		}
	}
	return out
}
