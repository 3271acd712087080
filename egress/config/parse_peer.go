package config

import (
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/vrf"
)

// Defaults and bounds of a peer: RFC 9003 with what GoBGP sends of it, and the
// sessions that one range may have.
const (
	defaultMaxSessions    = 64
	maxMaxSessions        = 4096
	maxShutdownMessage    = 128
	defaultPrefixWarning  = 80
	defaultPrefixesReopen = time.Minute
)

func (p *parser) peer(n *network, at path, raw RawPeer, asn uint32) bgp.Peer {
	peer := bgp.Peer{
		Description: raw.Description,
		ASN:         p.asn(at.key("asn"), raw.ASN),
		Port:        uint16(p.integer(at.key("port"), raw.Port, DefaultBGPPort, 1, math.MaxUint16)),
		Passive:     raw.Passive,
		AddPath:     raw.AddPath, ExtendedNextHop: raw.ExtendedNextHop,
		HoldTime:     p.seconds(at.key("holdTime"), raw.HoldTime, DefaultHoldTime, 3*time.Second, maxHoldTime),
		ConnectRetry: p.seconds(at.key("connectRetry"), raw.ConnectRetry, DefaultConnectRetry, time.Second, maxHoldTime),
		Multihop:     uint8(p.integer(at.key("multihop"), raw.Multihop, 0, 2, math.MaxUint8)),
		TTLSecurity:  uint8(p.integer(at.key("ttlSecurity"), raw.TTLSecurity, 0, 1, math.MaxUint8-1)),
	}
	third := max(peer.HoldTime/3, time.Second).Truncate(time.Second)
	peer.KeepaliveTime = p.seconds(at.key("keepaliveTime"), raw.KeepaliveTime, third, time.Second, peer.HoldTime-time.Second)
	p.oneLine(at.key("description"), raw.Description, maxDescription)
	p.distance(at, raw, &peer, asn)
	p.localASN(at, raw, &peer, asn)
	p.secret(at, raw, &peer)
	p.shutdown(at, raw, &peer)
	anyDistance := peer.Multihop != 0 || peer.TTLSecurity > 1 || peer.ASN == asn
	inside := p.peerAddresses(n, at, raw, &peer, anyDistance)
	if peer.TTLSecurity > 0 && inside.Is6() && (peer.Passive || peer.Range.IsValid()) {
		p.add(at.key("ttlSecurity"), "is not possible for neighbours that dial us over IPv6: our answers have the kernel's hop limit; dial them, or use IPv4")
	}
	peer.IPv4, peer.IPv6 = p.families(at.key("families"), raw.Families, inside)
	if inside.Is4() && peer.IPv6 {
		peer.NextHopIPv6 = p.nextHopSelf(n, at.key("families"), inside)
	}
	if raw.ExtendedNextHop && inside.Is4() {
		p.add(at.key("extendedNextHop"), "is for neighbours with an IPv6 address: over IPv4 the next hop is an IPv4 address anyway")
	}
	if inside.Is6() && peer.IPv4 && !raw.ExtendedNextHop {
		peer.NextHopIPv4 = p.nextHopSelf(n, at.key("families"), inside)
	}
	peer.Import = p.imports(at.key("import"), raw.Import, peer)
	p.prefixLimit(at, raw, &peer)
	peer.Export = p.export(at.key("export"), raw.Export, peer.ASN == asn)
	return peer
}

// oneLine checks a text for people.
func (p *parser) oneLine(at path, s string, limit int) {
	if len(s) > limit {
		p.add(at, "is %d bytes long, at most %d are allowed", len(s), limit)
	} else if strings.ContainsFunc(s, unicode.IsControl) {
		p.add(at, "has line breaks or control characters in it: one line of text is allowed")
	}
}

// distance checks how far away the peer may be.
func (p *parser) distance(at path, raw RawPeer, peer *bgp.Peer, asn uint32) {
	if peer.ASN != 0 && peer.ASN == asn && raw.Multihop != nil {
		p.add(at.key("multihop"), "is for peers in another AS: a session within AS %d reaches any number of hops already", asn)
	}
	if raw.Multihop != nil && raw.TTLSecurity != nil {
		p.add(at.key("ttlSecurity"), "excludes multihop: it says itself how many hops away the peer may be")
	}
}

func (p *parser) localASN(at path, raw RawPeer, peer *bgp.Peer, asn uint32) {
	if raw.LocalASN == nil {
		return
	}
	at = at.key("localASN")
	peer.LocalASN = p.asn(at, raw.LocalASN)
	switch {
	case peer.LocalASN == 0:
	case peer.ASN == asn:
		p.add(at, "is for peers in another AS: this one is in AS %d, which is ours", asn)
	case peer.ASN == peer.LocalASN:
		p.add(at, "%d is the peer's AS number: use another one", peer.LocalASN)
	}
}

// secret checks where the password is; it is read only when it is used.
func (p *parser) secret(at path, raw RawPeer, peer *bgp.Peer) {
	peer.PasswordFile, peer.PasswordEnv = raw.PasswordFile, raw.PasswordEnv
	if raw.PasswordFile != "" && raw.PasswordEnv != "" {
		p.add(at.key("passwordEnv"), "excludes passwordFile: the password is in one place")
	}
	if raw.PasswordFile != "" && !filepath.IsAbs(raw.PasswordFile) {
		p.add(at.key("passwordFile"), "%s is not an absolute path: it begins with /", quote(raw.PasswordFile))
	}
	if raw.PasswordEnv != "" && !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(raw.PasswordEnv) {
		p.add(at.key("passwordEnv"), "%s is not the name of an environment variable: use letters, digits and '_'", quote(raw.PasswordEnv))
	}
}

func (p *parser) shutdown(at path, raw RawPeer, peer *bgp.Peer) {
	peer.Shutdown, peer.ShutdownMessage = raw.Shutdown, raw.ShutdownMessage
	p.oneLine(at.key("shutdownMessage"), raw.ShutdownMessage, maxShutdownMessage)
	if raw.Shutdown && raw.Range != "" {
		p.add(at.key("shutdown"), "is not for a range: remove the entry instead")
	}
}

// peerAddresses checks who the peer is, and returns an address of its family.
func (p *parser) peerAddresses(n *network, at path, raw RawPeer, peer *bgp.Peer, anyDistance bool) netip.Addr {
	peer.MaxSessions = int(p.integer(at.key("maxSessions"), raw.MaxSessions, 0, 1, maxMaxSessions))
	if raw.Range == "" {
		if raw.MaxSessions != nil {
			p.add(at.key("maxSessions"), "is for a range of neighbours: this is one")
		}
		peer.Address = p.peerAddress(n, at.key("address"), raw.Address, anyDistance)
		return peer.Address
	}
	if raw.MaxSessions == nil {
		peer.MaxSessions = defaultMaxSessions
	}
	if raw.Address != "" {
		p.add(at.key("range"), "excludes address: the entry is for one neighbour or for many")
	}
	at = at.key("range")
	prefix, ok := p.prefix(at, raw.Range)
	if !ok {
		return netip.Addr{}
	}
	what := overlapsSpecial(prefix)
	switch {
	case prefix.Bits() == 0:
		p.add(at, "%s would take sessions from everybody: name the prefix that the neighbours are in", prefix)
	case what != "":
		p.add(at, "%s has %s addresses in it: neighbours have unicast addresses", prefix, what)
	case !anyDistance && !n.connected(prefix.Addr()):
		p.dangling(n.at.key("interfaces"), at, "%s is on no connected prefix of this network (%s): set multihop if the neighbours are further away", prefix, n.connectedPrefixes(prefix.Addr()))
	}
	peer.Range = prefix
	return prefix.Addr()
}

// ranges checks that each neighbour belongs to one entry.
func (p *parser) ranges(at path, peers []bgp.Peer) {
	for i, peer := range peers {
		for j, other := range peers {
			at := at.index(i).key("range")
			switch {
			case !peer.Range.IsValid() || i == j:
			case other.Range.IsValid() && j < i && peer.Range.Overlaps(other.Range):
				p.add(at, "%s overlaps %s of peers[%d]", peer.Range, other.Range, j)
			case other.Address.IsValid() && peer.Range.Contains(other.Address):
				p.add(at, "%s has the address of peers[%d] in it, %s: each neighbour belongs to one entry", peer.Range, j, other.Address)
			}
		}
	}
}

// peerAddress checks a peer's address. anyDistance peers may be off the
// connected prefixes.
func (p *parser) peerAddress(n *network, at path, s string, anyDistance bool) netip.Addr {
	if link, err := netip.ParseAddr(s); err == nil && link.Zone() != "" {
		return p.linkLocal(n, at, link)
	}
	a, ok := p.addr(at, s)
	if !ok || !p.otherHost(n, at, a) {
		return netip.Addr{}
	}
	if a.IsLinkLocalUnicast() {
		p.add(at, "%s is link-local: only IPv6 has such sessions, to an address with its interface, such as fe80::2%%eth1", a)
		return netip.Addr{}
	}
	if !anyDistance && !n.connected(a) {
		p.dangling(n.at.key("interfaces"), at, "%s is on no connected prefix of this network (%s): set multihop if it is further away", a, n.connectedPrefixes(a))
	}
	n.uses = append(n.uses, use{at, a, "its prefix is discarded inside the network, so the peer would be out of reach"})
	return a
}

// linkLocal checks an address that is good on one link only.
func (p *parser) linkLocal(n *network, at path, a netip.Addr) netip.Addr {
	switch {
	case !a.IsLinkLocalUnicast():
		p.add(at, "%s is not link-local: write it without %%%s", a.WithZone(""), a.Zone())
	case !slices.ContainsFunc(n.ports, func(port vrf.Port) bool { return port.Name == a.Zone() }):
		p.dangling(n.at.key("interfaces"), at, "%s is not an interface of this network", quote(a.Zone()))
	default:
		return a
	}
	return netip.Addr{}
}

// prefixLimit checks what happens with many prefixes.
func (p *parser) prefixLimit(at path, raw RawPeer, peer *bgp.Peer) {
	peer.MaxPrefixes = uint32(p.integer(at.key("maxPrefixes"), raw.MaxPrefixes, 0, 0, math.MaxUint32))
	warning := uint8(p.integer(at.key("maxPrefixesWarning"), raw.MaxPrefixesWarning, defaultPrefixWarning, 0, 100))
	warnOnly := p.oneOf(at.key("maxPrefixesAction"), raw.MaxPrefixesAction, "close", "close", "warn") == "warn"
	reopen := p.duration(at.key("maxPrefixesRestart"), raw.MaxPrefixesRestart, defaultPrefixesReopen, time.Second, 24*time.Hour)
	if peer.MaxPrefixes > 0 {
		peer.MaxPrefixesWarning, peer.MaxPrefixesWarnOnly, peer.MaxPrefixesRestart = warning, warnOnly, reopen
	}
}

// defaultOnly is the word for a default route and nothing else.
const defaultOnly = "default"

// imports checks what is accepted from a peer. Length bounds default to the
// prefix itself and everything inside.
func (p *parser) imports(at path, raws []RawImport, peer bgp.Peer) []bgp.ImportRule {
	var rules []bgp.ImportRule
	for i, raw := range raws {
		at := at.index(i)
		rule := p.importMatch(at, raw)
		if raw.Prefix == defaultOnly || raw.Prefix == "" && (raw.ASPath != "" || len(raw.Communities) > 0) {
			rules = append(rules, p.everyFamily(at, raw, rule, peer)...)
			continue
		}
		prefix, ok := p.prefix(at.key("prefix"), raw.Prefix)
		if !ok {
			continue
		}
		bits, all := int64(prefix.Bits()), int64(prefix.Addr().BitLen())
		rule.Prefix = prefix
		rule.Min = int(p.integer(at.key("min"), raw.Min, bits, bits, all))
		rule.Max = int(p.integer(at.key("max"), raw.Max, all, bits, all))
		if rule.Min > rule.Max {
			p.add(at.key("min"), "%d is above max (%d): no prefix would be accepted", rule.Min, rule.Max)
		}
		who := peer.Address.IsValid() || peer.Range.IsValid()
		if v4 := prefix.Addr().Is4(); who && (v4 && !peer.IPv4 || !v4 && !peer.IPv6) {
			p.add(at.key("prefix"), "%s is %s, which is not among the peer's families: add %s-unicast to families", prefix, family(prefix.Addr()), lowerFamily(v4))
		}
		if slices.ContainsFunc(rules, rule.Equal) {
			p.add(at.key("prefix"), "%s is listed twice", prefix)
		}
		rules = append(rules, rule)
	}
	return rules
}

// importMatch checks the parts of a rule beside its prefix.
func (p *parser) importMatch(at path, raw RawImport) bgp.ImportRule {
	rule := bgp.ImportRule{ASPath: raw.ASPath, Reject: p.oneOf(at.key("action"), raw.Action, "accept", "accept", "reject") == "reject"}
	if _, err := bgp.CompileASPath(raw.ASPath); err != nil {
		p.add(at.key("asPath"), "%s is not a regular expression: %s", quote(raw.ASPath), shorten(err.Error()))
	}
	rule.Communities, rule.LargeCommunities = p.communities(at.key("communities"), raw.Communities)
	if raw.LocalPref != nil {
		rule.LocalPref = new(uint32(p.integer(at.key("localPref"), raw.LocalPref, 0, 0, math.MaxUint32)))
		if rule.Reject {
			p.add(at.key("localPref"), "is for what is accepted")
		}
	}
	return rule
}

// everyFamily makes a rule for each of the peer's families: for the default
// route alone, or for every prefix.
func (p *parser) everyFamily(at path, raw RawImport, rule bgp.ImportRule, peer bgp.Peer) []bgp.ImportRule {
	for _, bound := range []struct {
		key   string
		value *int64
	}{{"min", raw.Min}, {"max", raw.Max}} {
		if bound.value != nil {
			p.add(at.key(bound.key), "needs a prefix")
		}
	}
	var rules []bgp.ImportRule
	for _, f := range []struct {
		has bool
		all netip.Addr
	}{{peer.IPv4, netip.IPv4Unspecified()}, {peer.IPv6, netip.IPv6Unspecified()}} {
		if !f.has {
			continue
		}
		one := rule.Clone()
		one.Prefix = netip.PrefixFrom(f.all, 0)
		if raw.Prefix != defaultOnly {
			one.Max = f.all.BitLen()
		}
		rules = append(rules, one)
	}
	return rules
}
