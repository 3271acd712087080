package bgp

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"unique"
)

func TestAccepts(t *testing.T) {
	rules := []ImportRule{
		{Prefix: prefix("10.0.0.0/8"), Min: 16, Max: 24}, {Prefix: prefix("0.0.0.0/0")},
		{Prefix: prefix("2001:db8::/32"), Min: 32, Max: 128},
	}
	for p, want := range map[string]bool{
		"10.0.0.0/8": false, "10.0.0.0/15": false, "10.1.0.0/16": true, "10.1.1.0/24": true, "10.1.1.0/25": false,
		"11.0.0.0/16": false, "0.0.0.0/0": true, "0.0.0.0/1": false, "::/0": false,
		"2001:db8::/32": true, "2001:db8::1/128": true, "2001:d00::/24": false,
	} {
		if got := judge(compileRules(rules), prefix(p), candidate{}).accepted; got != want {
			t.Errorf("%s: %t", p, got)
		}
	}
	if judge(nil, prefix("10.0.0.0/16"), candidate{}).accepted {
		t.Error("no rules let something in")
	}
}

func TestJudge(t *testing.T) {
	rules := []ImportRule{
		{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 32, Communities: []uint32{666}, LargeCommunities: []LargeCommunity{{1, 2, 3}}, Reject: true},
		{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 32, ASPath: "_65009_", LocalPref: new(uint32(50))},
		{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 32, ASPath: `^6500[12]( \d+)*$`},
	}
	compiled := compileRules(rules)
	for _, c := range []struct {
		attrs pathAttributes
		want  verdict
	}{
		{pathAttributes{asPath: "65001"}, verdict{true, 120, false}},
		{pathAttributes{asPath: "65003"}, verdict{}},
		{pathAttributes{}, verdict{}},
		{pathAttributes{asPath: "65002 65009 1"}, verdict{true, 50, false}},
		{pathAttributes{asPath: "65003 {65009,65010}"}, verdict{true, 50, false}},
		{pathAttributes{asPath: "65003 165009 650091"}, verdict{}},
		{pathAttributes{asPath: "65001", communities: packCommunities([]uint32{1, 666})}, verdict{}},
		// The bytes of a community may not be taken across two.
		{pathAttributes{asPath: "65001", communities: packCommunities([]uint32{0, 666 << 16, 0})}, verdict{true, 120, false}},
		{pathAttributes{asPath: "65001", large: packLarge([]LargeCommunity{{3, 2, 1}, {1, 2, 3}})}, verdict{}},
		{pathAttributes{asPath: "65001", large: packLarge([]LargeCommunity{{0, 1, 2}, {3, 0, 0}})}, verdict{true, 120, false}},
		{pathAttributes{asPath: "65009", communities: packCommunities([]uint32{GracefulShutdown, llgrStale})}, verdict{true, 0, true}},
	} {
		got := judge(compiled, prefix("10.1.0.0/16"), candidate{localPref: 120, attrs: unique.Make(c.attrs)})
		if got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.attrs, got, c.want)
		}
	}
}

func TestMartians(t *testing.T) {
	for p, want := range map[string]bool{
		"0.0.0.0/0": false, "0.0.0.0/8": true, "0.1.0.0/16": true, "0.0.0.0/1": false, "127.0.0.0/8": true, "127.0.0.1/32": true,
		"126.0.0.0/7": false, "169.254.1.0/24": true, "224.0.0.0/4": true, "240.0.0.0/4": true, "255.255.255.255/32": true,
		"224.0.0.0/3": true, "192.0.0.0/2": false, "::/0": false, "::1/128": true, "::/128": true, "fe80::/10": true,
		"fe80::1/128": true, "febf::/16": true, "fec0::/16": false, "ff02::/16": true, "::ffff:10.0.0.0/104": true, "2000::/3": false,
	} {
		if got := within(prefix(p), martians()); got != want {
			t.Errorf("%s: %t", p, got)
		}
	}
}

func TestBestNextHops(t *testing.T) {
	path := func(hop string, change func(*contender)) contender {
		c := contender{received: received{candidate: candidate{nextHop: addr(hop), asPathLen: 2, neighborAS: 65001}, verdict: verdict{accepted: true, pref: 100}}}
		if change != nil {
			change(&c)
		}
		return c
	}
	for name, c := range map[string]struct {
		paths []contender
		want  string
	}{
		"none":            {nil, "[]"},
		"equal, sorted":   {[]contender{path("192.0.2.2", nil), path("192.0.2.1", nil)}, "[192.0.2.1 192.0.2.2]"},
		"same hop twice":  {[]contender{path("192.0.2.1", nil), path("192.0.2.1", nil)}, "[192.0.2.1]"},
		"local pref":      {[]contender{path("192.0.2.1", nil), path("192.0.2.2", func(c *contender) { c.pref = 200; c.asPathLen = 9 })}, "[192.0.2.2]"},
		"stale":           {[]contender{path("192.0.2.1", nil), path("192.0.2.2", func(c *contender) { c.pref = 200; c.stale = true })}, "[192.0.2.1]"},
		"AS path":         {[]contender{path("192.0.2.1", nil), path("192.0.2.2", func(c *contender) { c.asPathLen = 1; c.origin = 2 })}, "[192.0.2.2]"},
		"origin":          {[]contender{path("192.0.2.1", nil), path("192.0.2.2", func(c *contender) { c.origin = 1 })}, "[192.0.2.1]"},
		"MED, same AS":    {[]contender{path("192.0.2.1", func(c *contender) { c.med = 5 }), path("192.0.2.2", func(c *contender) { c.med = 4 })}, "[192.0.2.2]"},
		"MED, other AS":   {[]contender{path("192.0.2.1", func(c *contender) { c.med = 5 }), path("192.0.2.2", func(c *contender) { c.neighborAS = 65002 })}, "[192.0.2.1 192.0.2.2]"},
		"eBGP over iBGP":  {[]contender{path("192.0.2.1", func(c *contender) { c.internal = true }), path("192.0.2.2", nil)}, "[192.0.2.2]"},
		"only iBGP":       {[]contender{path("192.0.2.1", func(c *contender) { c.internal = true })}, "[192.0.2.1]"},
		"MED before iBGP": {[]contender{path("192.0.2.1", func(c *contender) { c.med = 1 }), path("192.0.2.2", func(c *contender) { c.internal = true })}, "[192.0.2.2]"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 4 {
				rand.Shuffle(len(c.paths), func(i, j int) { c.paths[i], c.paths[j] = c.paths[j], c.paths[i] })
				if got := fmt.Sprint(bestNextHops(slices.Clone(c.paths))); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			}
		})
	}
}

// TestRIB compares the incremental rib with one that is built anew from all
// that is known, after random changes.
func TestRIB(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		peers := []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2"), addr("2001:db8::3")}
		ruleSets := [][]ImportRule{nil, anything, {{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 24}}, {{Prefix: prefix("2001:db8::/32"), Min: 32, Max: 64}},
			{{Prefix: prefix("0.0.0.0/0"), Max: 32, ASPath: "_65001$", LocalPref: new(uint32(200))},
				{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 32, Communities: []uint32{7}, Reject: true}, anything[0], anything[1]}}
		nevers := [][]netip.Prefix{nil, {prefix("10.1.0.0/16")}, {prefix("198.51.100.0/24"), prefix("2001:db8:51::/48")}}
		known := map[netip.Addr]map[pathKey]candidate{}
		rules, local := map[netip.Addr][]ImportRule{}, map[netip.Addr]uint32{}
		var never []netip.Prefix
		r := newRIB()
		for _, p := range peers {
			known[p], rules[p] = map[pathKey]candidate{}, anything
			r.setPeer(p, peerPolicy{internal: p == peers[2], rules: anything})
		}
		for range 400 {
			peer := peers[rnd.IntN(3)]
			p := pathKey{prefix(randomPrefix(rnd)), rnd.Uint32N(1 + uint32(seed)%3)}
			switch op := rnd.IntN(20); {
			case op < 11:
				c := candidate{nextHop: addr([]string{"192.0.2.7", "192.0.2.8", "2001:db8::7", "127.0.0.1"}[rnd.IntN(4)]),
					localPref: 100 + rnd.Uint32N(2), asPathLen: rnd.IntN(2), med: rnd.Uint32N(2), loop: rnd.IntN(9) == 0,
					attrs: unique.Make(pathAttributes{asPath: randomASPath(rnd), communities: packCommunities([]uint32{7, GracefulShutdown, llgrStale, 8}[:rnd.IntN(3)])})}
				known[peer][p] = c
				r.announce(peer, p, c)
			case op < 16:
				delete(known[peer], p)
				r.withdraw(peer, p)
			case op == 16:
				rules[peer] = ruleSets[rnd.IntN(len(ruleSets))]
				r.setPeer(peer, peerPolicy{internal: peer == peers[2], localASN: uint32(rnd.IntN(2)) * 65001, rules: rules[peer]})
				local[peer] = r.peers[peer].peer.localASN
			case op == 17:
				never = nevers[rnd.IntN(len(nevers))]
				r.setNever(never)
			case op == 18:
				clear(known[peer])
				r.clear(peer)
			case op == 19:
				version := r.version(peer)
				if rnd.IntN(2) == 0 {
					r.announce(peer, p, candidate{nextHop: addr("192.0.2.7")})
					known[peer][p] = candidate{nextHop: addr("192.0.2.7")}
				}
				listing := maps.Clone(known[peer])
				if !r.replace(peer, version, listing) && version == r.version(peer) {
					t.Fatal("an up-to-date listing was refused")
				}
			}
			if rnd.IntN(3) > 0 {
				continue
			}
			fresh := newRIB()
			fresh.setNever(never)
			for _, q := range peers {
				fresh.setPeer(q, peerPolicy{internal: q == peers[2], localASN: local[q], rules: rules[q]})
				for p, c := range known[q] {
					fresh.announce(q, p, c)
				}
			}
			if got, want := r.snapshot(), fresh.snapshot(); !slices.EqualFunc(got, want, func(a, b Route) bool { return reflect.DeepEqual(a, b) }) {
				t.Fatalf("seed %d: got %v, want %v", seed, got, want)
			}
			for _, q := range peers {
				if a, b := r.peers[q], fresh.peers[q]; a.count != b.count || a.accepted != b.accepted {
					t.Fatalf("seed %d: peer %s counts %v %d, want %v %d", seed, q, a.count, a.accepted, b.count, b.accepted)
				}
			}
		}
		before := r.snapshot()
		text := fmt.Sprint(before)
		for _, p := range peers {
			r.removePeer(p)
		}
		if got := r.snapshot(); len(got) != 0 {
			t.Errorf("left over: %v", got)
		}
		if fmt.Sprint(before) != text {
			t.Error("a snapshot was changed")
		}
	}
}

func randomASPath(rnd *rand.Rand) string {
	return []string{"", "65001", "65002 65001", "65001 65002 {65001,65003}"}[rnd.IntN(4)]
}

func TestOldListing(t *testing.T) {
	r, peer := newRIB(), addr("192.0.2.1")
	r.setPeer(peer, peerPolicy{rules: anything})
	version := r.version(peer)
	r.announce(peer, pathKey{prefix: prefix("10.0.0.0/8")}, candidate{nextHop: addr("192.0.2.1")})
	if r.replace(peer, version, nil) {
		t.Error("a listing from before an announcement was taken")
	}
	if len(r.snapshot()) != 1 {
		t.Error("the announcement is lost")
	}
}
