package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/egret-router/egret/bgp"
)

// Bounds of what goes along with a prefix: RFC 4271 5 (32-bit numbers), and
// what an UPDATE message and the filters of the world have room for.
const (
	maxPrepend     = 16
	maxCommunities = 64
)

// attributes checks what goes along with advertised prefixes.
func (p *parser) attributes(at path, raw RawExport) bgp.Attributes {
	var a bgp.Attributes
	a.Communities, a.LargeCommunities = p.communities(at.key("communities"), raw.Communities)
	if raw.MED != nil {
		a.MED = new(uint32(p.integer(at.key("med"), raw.MED, 0, 0, math.MaxUint32)))
	}
	if raw.LocalPref != nil {
		a.LocalPref = new(uint32(p.integer(at.key("localPref"), raw.LocalPref, 1, 1, math.MaxUint32)))
	}
	if n := p.integer(at.key("prepend"), raw.Prepend, 0, 0, maxPrepend); n > 0 {
		a.Prepend = new(uint8(n))
	}
	return a
}

// export checks what is replaced for one peer, internal if it is in our own AS.
// A list of communities, also an empty one, replaces those of both kinds.
func (p *parser) export(at path, raw RawExport, internal bool) bgp.Attributes {
	a := p.attributes(at, raw)
	if raw.Prepend != nil && a.Prepend == nil {
		a.Prepend = new(uint8(0))
	}
	if raw.Communities != nil {
		if a.Communities == nil {
			a.Communities = []uint32{}
		}
		if a.LargeCommunities == nil {
			a.LargeCommunities = []bgp.LargeCommunity{}
		}
	}
	if raw.LocalPref != nil && !internal {
		p.add(at.key("localPref"), "is only sent within our own AS: this peer is in another one")
	}
	if raw.Prepend != nil && internal {
		p.add(at.key("prepend"), "is only for peers in another AS: this peer would take the path for a loop")
	}
	return a
}

// advertise checks the prefixes that are advertised by name.
func (p *parser) advertise(n *network, at path, raws []RawAdvertise) []bgp.Advertisement {
	var out []bgp.Advertisement
	for i, raw := range raws {
		at := at.index(i)
		a := bgp.Advertisement{Attributes: p.attributes(at, RawExport{raw.Communities, raw.MED, raw.LocalPref, raw.Prepend})}
		prefix, ok := p.prefix(at.key("prefix"), raw.Prefix)
		if !ok {
			continue
		}
		a.Prefix = prefix
		what := overlapsSpecial(prefix)
		switch {
		case prefix.Bits() == 0:
			p.add(at.key("prefix"), "%s would draw the traffic of the whole network to this gateway: name the addresses that are behind it", prefix)
		case what != "":
			p.add(at.key("prefix"), "%s has %s addresses in it: only unicast addresses are advertised", prefix, what)
		case slices.ContainsFunc(out, func(b bgp.Advertisement) bool { return b.Prefix == prefix }):
			p.add(at.key("prefix"), "%s is listed twice", prefix)
		}
		for _, own := range n.own {
			if prefix.Bits() >= own.Bits() && own.Contains(prefix.Addr()) {
				p.add(at.key("prefix"), "%s is on this gateway's own link (%s): packets to a prefix that is advertised by name are discarded where no pool has them", prefix, own.Masked())
			}
		}
		out = append(out, a)
	}
	return out
}

// communities checks communities: two numbers (RFC 1997), three (RFC 8092), or a
// name.
func (p *parser) communities(at path, raws []string) (standard []uint32, large []bgp.LargeCommunity) {
	if len(raws) > maxCommunities {
		p.add(at, "there are %d communities, at most %d are possible", len(raws), maxCommunities)
	}
	for i, s := range raws {
		at := at.index(i)
		c, ok := parseCommunity(s)
		switch {
		case !ok:
			p.add(at, "%s is not a community: write two numbers from 0 to 65535 (64512:100), three from 0 to 4294967295 (64512:1:2), or %s", quote(s), alternatives(communityNames()))
		case c.large && slices.Contains(large, c.three), !c.large && slices.Contains(standard, c.two):
			p.add(at, "%s is listed twice", s)
		case c.large:
			large = append(large, c.three)
		default:
			standard = append(standard, c.two)
		}
	}
	return standard, large
}

// community is one of either kind.
type community struct {
	large bool
	two   uint32
	three bgp.LargeCommunity
}

// communityNames are the well-known communities that may be written by name.
func communityNames() []string {
	return []string{"no-export", "no-advertise", "graceful-shutdown", "blackhole"}
}

// parseCommunity reads a community in its one canonical form.
func parseCommunity(s string) (community, bool) {
	if i := slices.Index(communityNames(), s); i >= 0 {
		return community{two: []uint32{bgp.NoExport, bgp.NoAdvertise, bgp.GracefulShutdown, bgp.Blackhole}[i]}, true
	}
	parts := strings.Split(s, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	if bits == 0 {
		return community{}, false
	}
	var n [3]uint32
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, bits)
		if err != nil || fmt.Sprint(v) != part {
			return community{}, false
		}
		n[i] = uint32(v)
	}
	if len(parts) == 2 {
		return community{two: n[0]<<16 | n[1]}, true
	}
	return community{large: true, three: bgp.LargeCommunity{Global: n[0], Local1: n[1], Local2: n[2]}}, true
}
