package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/probes/bfd"
	"github.com/egret-router/egret/vrf"
)

// The daemon's defaults.
const (
	DefaultMetricsListen = "127.0.0.1:9643"
	DefaultRunDir        = "/run/egret"
	DefaultResync        = 60 * time.Second
	DefaultDrainDelay    = time.Second
	DefaultDrainDeadline = 5 * time.Minute
)

// maxRunDir leaves room for a file name in a unix socket's 108 bytes (unix(7)).
const maxRunDir = 80

// Tables the kernel uses itself: unspecified, default, main and local.
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255
)

// Defaults are the settings of a configuration that says nothing about them.
func Defaults() egress.Settings {
	p := parser{report: &report{}}
	return p.settings(Raw{})
}

func (p *parser) settings(raw Raw) egress.Settings {
	return egress.Settings{
		MetricsListen: p.listen("metrics.listen", raw.Metrics.Listen),
		RunDir:        p.runDir("runDir", raw.RunDir),
		BFDLinger:     bfd.DefaultLinger, // bfdLinger knows better, once all networks are known
		Resync:        p.duration("resync", raw.Resync, DefaultResync, time.Second, 24*time.Hour),
		Flowtable:     raw.Flowtable == nil || *raw.Flowtable,
		Drain:         p.drain("drain", raw.Drain),
		Shutdown: egress.Shutdown(p.oneOf("shutdown", raw.Shutdown, string(egress.ShutdownLeave),
			string(egress.ShutdownLeave), string(egress.ShutdownDrain))),
		Ownership: p.parseOwnership("ownership", raw.Ownership),
	}
}

func (p *parser) drain(at path, raw RawDrain) drain.Order {
	before := len(p.findings)
	o := drain.Order{
		Delay:    p.duration(at.key("delay"), raw.Delay, DefaultDrainDelay, 0, drain.MaxDelay),
		Deadline: p.duration(at.key("deadline"), raw.Deadline, DefaultDrainDeadline, 0, drain.MaxDeadline),
	}
	if o.Deadline < o.Delay && len(p.findings) == before {
		p.add(at.key("deadline"), "%s is before new flows are refused (drain.delay, %s)", o.Deadline, o.Delay)
	}
	return o
}

// listen checks host:port with an address as host.
func (p *parser) listen(at path, s *string) string {
	if s == nil {
		return DefaultMetricsListen
	}
	if *s == "" || *s == "off" {
		return ""
	}
	host, port, err := net.SplitHostPort(*s)
	if err != nil {
		p.add(at, "%s is not address:port, such as %s or \"[::1]:9643\"; \"off\" turns metrics off", quote(*s), DefaultMetricsListen)
		return ""
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		p.add(at, "%s is not an IP address, localhost, or nothing (all addresses)", quote(host))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		p.add(at, "%s is not a port: 1 to 65535 are allowed, 0 picks a free one", quote(port))
	} else if strconv.FormatUint(n, 10) != port {
		p.add(at, "%s is not a port: write %d", quote(port), n)
	}
	return *s
}

func (p *parser) runDir(at path, s string) string {
	switch {
	case s == "":
		return DefaultRunDir
	case !filepath.IsAbs(s) || filepath.Clean(s) == "/":
		p.add(at, "%s is not allowed: it must be an absolute path of a directory of our own, such as %s", quote(s), DefaultRunDir)
	case len(s) > maxRunDir:
		p.add(at, "is %d bytes long, at most %d are allowed: unix sockets lie inside", len(s), maxRunDir)
	}
	return filepath.Clean(s)
}

func (p *parser) parseOwnership(at path, raw RawOwnership) egress.Ownership {
	o := egress.DefaultOwnership()
	o.Protocol = p.protocol(at.key("protocol"), raw.Protocol, o.Protocol)
	before := len(p.findings)
	o.LearnedProtocol = p.protocol(at.key("learnedProtocol"), raw.LearnedProtocol, o.LearnedProtocol)
	if o.Protocol == o.LearnedProtocol && len(p.findings) == before {
		p.add(at.key("learnedProtocol"), "%d is ownership.protocol as well: routes learned by BGP need a number of their own", o.LearnedProtocol)
	}
	// Ids are hashes: a small range would be full of collisions.
	o.NextHopIDs = p.idRange(at.key("nextHopIDs"), raw.NextHopIDs, o.NextHopIDs, 1, math.MaxUint32, 1<<16,
		"ids are hashes and need the room")
	// 0 is the kernel's local table, 1000 its rule for VRF devices.
	o.RulePriorities = p.idRange(at.key("rulePriorities"), raw.RulePriorities, o.RulePriorities, 1, 999, 200,
		"the rules are spread over it; they must come before the kernel's rule 1000 for VRF devices")
	o.TableBase = vrf.TableID(p.integer(at.key("tableBase"), raw.TableBase, int64(o.TableBase), tableLocal, math.MaxUint32-MaxNetworks))
	o.ZoneBase = uint16(p.integer(at.key("zoneBase"), raw.ZoneBase, int64(o.ZoneBase), 0, math.MaxUint16-MaxNetworks))
	return o
}

// protocol checks a route protocol number (rtm_protocol).
func (p *parser) protocol(at path, n *int64, def uint8) uint8 {
	v := p.integer(at, n, int64(def), 5, 255)
	if other := knownProtocol(v); other != "" {
		p.add(at, "%d is the number of %s: its routes would be taken for ours; use a free one, such as %d", v, other, def)
	}
	return uint8(v)
}

// knownProtocol names the software a number above 4 belongs to
// (include/uapi/linux/rtnetlink.h, RTPROT_*).
func knownProtocol(n int64) string {
	return map[int64]string{8: "gated", 9: "router advertisements", 10: "mrt", 11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp",
		15: "ntk", 16: "dhcp", 17: "mrouted", 18: "keepalived", 42: "babel", 84: "ovn", 99: "openr", 186: "FRR's bgpd",
		187: "FRR's isisd", 188: "FRR's ospfd", 189: "FRR's ripd", 192: "FRR's eigrpd"}[n]
}

// idRange checks an inclusive range within low and high of at least size ids.
func (p *parser) idRange(at path, raw RawRange, def vrf.Range, low, high, size int64, why string) vrf.Range {
	before := len(p.findings)
	first := p.integer(at.key("first"), raw.First, int64(def.First), low, high)
	last := p.integer(at.key("last"), raw.Last, int64(def.Last), low, high)
	switch {
	case len(p.findings) > before: // of which the rest would be a consequence
	case last < first:
		p.add(at, "%d to %d is empty: last must not be below first", first, last)
	case last-first+1 < size:
		p.add(at, "%d to %d has %d numbers, at least %d are needed: %s", first, last, last-first+1, size, why)
	}
	return vrf.Range{First: uint32(first), Last: uint32(last)}
}

// derived says whether table is one that a network without a table may get.
func (p *parser) derived(table vrf.TableID) bool {
	return table > p.ownership.TableBase && table <= p.ownership.TableBase+MaxNetworks
}

func (p *parser) derivedRange() string {
	return fmt.Sprintf("%d to %d", p.ownership.TableBase+1, p.ownership.TableBase+MaxNetworks)
}

// returnTable checks clients.returnTable; main is 0.
func (p *parser) returnTable(at path, n *int64) vrf.TableID {
	table := vrf.TableID(p.integer(at, n, tableMain, 1, math.MaxUint32))
	switch {
	case table == tableMain:
		return 0
	case table == tableLocal:
		p.add(at, "%d is the kernel's table of local addresses: no client is reached through it; leave it out for main", table)
	case p.derived(table):
		p.add(at, "%d lies in %s, the tables of our networks: replies to clients need a table of the client side; leave it out for main", table, p.derivedRange())
	}
	return table
}

// networkTable checks the table of a network; 0 leaves the choice to us.
func (p *parser) networkTable(at path, n *int64) vrf.TableID {
	if n == nil {
		return 0
	}
	table := vrf.TableID(p.integer(at, n, 0, 1, math.MaxUint32))
	switch {
	case table >= tableDefault && table <= tableLocal:
		p.add(at, "%d is one of the kernel's own tables (253 default, 254 main, 255 local)", table)
	case table != 0 && p.derived(table):
		p.add(at, "%d lies in %s, which networks without a table get theirs from: use another, or leave it out", table, p.derivedRange())
	}
	return table
}

// tables checks that tables are not shared.
func (p *parser) tables(spec egress.Spec) {
	owners := map[vrf.TableID]string{}
	if spec.Clients.ReturnTable != 0 {
		owners[spec.Clients.ReturnTable] = "clients.returnTable"
	}
	for i, n := range spec.Networks {
		if n.Table == 0 {
			continue
		}
		if owner := owners[n.Table]; owner != "" {
			p.add(path("networks").index(i).key("table"), "%d is used already, by %s", n.Table, owner)
			continue
		}
		owners[n.Table] = "network " + quote(n.Name)
	}
}
