package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unique"
)

// llgrStale marks a route that a peer, or GoBGP for it, keeps beyond its restart
// time: it is used only where there is no other (RFC 9494 4.3).
const llgrStale uint32 = 0xffff0006

// pathAttributes are what import rules look at beside the prefix. Many paths
// share them, hence the handles.
type pathAttributes struct {
	// asPath is the AS path as text: "65001 65002 {65003,65004}".
	asPath string
	// communities has 4 bytes for each, large 12, in network order.
	communities, large string
}

type attributesHandle = unique.Handle[pathAttributes]

// attributes are those of a path; it may have none.
func (c candidate) attributes() pathAttributes {
	if c.attrs == (attributesHandle{}) {
		return pathAttributes{}
	}
	return c.attrs.Value()
}

func packCommunities(list []uint32) string {
	b := make([]byte, 0, 4*len(list))
	for _, c := range list {
		b = binary.BigEndian.AppendUint32(b, c)
	}
	return string(b)
}

func packLarge(list []LargeCommunity) string {
	b := make([]byte, 0, 12*len(list))
	for _, c := range list {
		for _, n := range [...]uint32{c.Global, c.Local1, c.Local2} {
			b = binary.BigEndian.AppendUint32(b, n)
		}
	}
	return string(b)
}

func (a pathAttributes) hasCommunity(c uint32) bool {
	return hasChunk(a.communities, packCommunities([]uint32{c}))
}

func (a pathAttributes) hasLarge(c LargeCommunity) bool {
	return hasChunk(a.large, packLarge([]LargeCommunity{c}))
}

// hasChunk looks for want among the pieces of its length that make up packed.
func hasChunk(packed, want string) bool {
	for ; len(packed) >= len(want); packed = packed[len(want):] {
		if packed[:len(want)] == want {
			return true
		}
	}
	return false
}

// communityTexts are those of both kinds.
func (a pathAttributes) communityTexts() []string {
	var out []string
	for i := 0; i+4 <= len(a.communities); i += 4 {
		out = append(out, FormatCommunity(binary.BigEndian.Uint32([]byte(a.communities[i:i+4]))))
	}
	for i := 0; i+12 <= len(a.large); i += 12 {
		b := []byte(a.large[i : i+12])
		out = append(out, LargeCommunity{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])}.String())
	}
	return out
}

// hasASN tells whether an AS is in the path.
func (a pathAttributes) hasASN(asn uint32) bool {
	want := fmt.Sprint(asn)
	return slices.Contains(strings.FieldsFunc(a.asPath, func(r rune) bool { return r < '0' || r > '9' }), want)
}

// verdict is what the rules make of a path.
type verdict struct {
	accepted bool
	// pref is the LOCAL_PREF that the path has for us.
	pref uint32
	// stale paths are used only where there is no other.
	stale bool
}

// compiledRule is an ImportRule ready for use.
type compiledRule struct {
	ImportRule
	path *regexp.Regexp // nil for any
}

// CompileASPath makes a regular expression for AS paths of the form that routers
// have: on the path as text, such as "65001 65002 {65003,65004}", where "_" also
// stands for a boundary between numbers, or an end.
func CompileASPath(expr string) (*regexp.Regexp, error) {
	return regexp.Compile(strings.ReplaceAll(expr, "_", `(?:^|[ {},()]|$)`))
}

// compileRules is for rules that are valid.
func compileRules(rules []ImportRule) []compiledRule {
	out := make([]compiledRule, 0, len(rules))
	for _, r := range rules {
		c := compiledRule{ImportRule: r}
		if r.ASPath != "" {
			c.path, _ = CompileASPath(r.ASPath)
		}
		out = append(out, c)
	}
	return out
}

func (r *compiledRule) matches(p netip.Prefix, c candidate) bool {
	if p.Bits() < r.Prefix.Bits() || !r.Prefix.Contains(p.Addr()) || p.Bits() < r.Min || p.Bits() > r.Max {
		return false
	}
	if r.path == nil && len(r.Communities) == 0 && len(r.LargeCommunities) == 0 {
		return true
	}
	a := c.attributes()
	if r.path != nil && !r.path.MatchString(a.asPath) {
		return false
	}
	return len(r.Communities) == 0 && len(r.LargeCommunities) == 0 ||
		slices.ContainsFunc(r.Communities, a.hasCommunity) || slices.ContainsFunc(r.LargeCommunities, a.hasLarge)
}

// judge finds the first rule that matches a path; none lets nothing in (RFC
// 8212). A path that its origin is about to take back is preferred least (RFC
// 8326 4.3).
func judge(rules []compiledRule, p netip.Prefix, c candidate) verdict {
	v := verdict{pref: c.localPref}
	for i := range rules {
		r := &rules[i]
		if !r.matches(p, c) {
			continue
		}
		v.accepted = !r.Reject
		if r.LocalPref != nil {
			v.pref = *r.LocalPref
		}
		break
	}
	if !v.accepted {
		return verdict{}
	}
	if a := c.attributes(); a.communities != "" {
		if a.hasCommunity(GracefulShutdown) {
			v.pref = 0
		}
		v.stale = a.hasCommunity(llgrStale)
	}
	return v
}
