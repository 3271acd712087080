package bgp

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func goodConfig() Config {
	return Config{
		Network: "red", Device: "red", ASN: 64512, RouterID: addr("10.255.0.1"),
		GracefulRestart: &GracefulRestart{RestartTime: 120 * time.Second},
		Peers: []Peer{
			{Address: addr("172.16.0.2"), ASN: 65001, Import: anything, HoldTime: 9 * time.Second, KeepaliveTime: 3 * time.Second},
			{Address: addr("fd00:16::2"), ASN: 4200000000, IPv4: true, NextHopIPv4: addr("172.16.0.1"), LocalAddress: addr("fd00:16::1")},
		},
		Advertise: advertise("198.51.100.0/28", "2001:db8::/32"),
		Reject:    prefixList("198.51.100.0/24"),
	}
}

func TestValidate(t *testing.T) {
	if errs := goodConfig().Validate(); errs != nil {
		t.Fatalf("a good configuration: %v", errs)
	}
	for want, change := range map[string]func(*Config){
		"network name is empty":                   func(c *Config) { c.Network = "" },
		`device "a/b"`:                            func(c *Config) { c.Device = "a/b" },
		`device "sixteen-letters0"`:               func(c *Config) { c.Device = "sixteen-letters0" },
		"own ASN 0 is reserved":                   func(c *Config) { c.ASN = 0 },
		"own ASN 23456 is reserved":               func(c *Config) { c.ASN = 23456 },
		`router id "invalid IP"`:                  func(c *Config) { c.RouterID = netip.Addr{} },
		`router id "::1"`:                         func(c *Config) { c.RouterID = addr("::1") },
		`router id "0.0.0.0"`:                     func(c *Config) { c.RouterID = addr("0.0.0.0") },
		"listen port 65536":                       func(c *Config) { c.ListenPort = 65536 },
		"listen port -2":                          func(c *Config) { c.ListenPort = -2 },
		"restart time 0s":                         func(c *Config) { c.GracefulRestart.RestartTime = 0 },
		"restart time 1h8m16s":                    func(c *Config) { c.GracefulRestart.RestartTime = 4096 * time.Second },
		"long-lived time -1s":                     func(c *Config) { c.GracefulRestart.LongLived = -time.Second },
		"restart time 1.5s":                       func(c *Config) { c.GracefulRestart.RestartTime = 1500 * time.Millisecond },
		`peer "172.16.0.2": configured`:           func(c *Config) { c.Peers[1].Address = addr("172.16.0.2"); c.Peers[1].LocalAddress = netip.Addr{} },
		"no address":                              func(c *Config) { c.Peers[0].Address = netip.Addr{} },
		`address "224.0.0.1" is not a uni`:        func(c *Config) { c.Peers[0].Address = addr("224.0.0.1") },
		`address "0.0.0.0" is not a uni`:          func(c *Config) { c.Peers[0].Address = addr("0.0.0.0") },
		`link-local address "fe80::1" is`:         func(c *Config) { c.Peers[1].Address = addr("fe80::1") },
		`"::ffff:10.0.0.1" is an IPv4-map`:        func(c *Config) { c.Peers[1].Address = addr("::ffff:10.0.0.1") },
		`peer "172.16.0.2": ASN 0`:                func(c *Config) { c.Peers[0].ASN = 0 },
		"hold time 2s":                            func(c *Config) { c.Peers[0].HoldTime = 2 * time.Second },
		"hold time -3s":                           func(c *Config) { c.Peers[0].HoldTime = -3 * time.Second },
		"hold time 18h12m16s":                     func(c *Config) { c.Peers[0].HoldTime = 65536 * time.Second },
		"keepalive time 9s":                       func(c *Config) { c.Peers[0].KeepaliveTime = 9 * time.Second },
		"connect retry 1ms":                       func(c *Config) { c.Peers[0].ConnectRetry = time.Millisecond },
		`local address "10.0.0.1" is not`:         func(c *Config) { c.Peers[1].LocalAddress = addr("10.0.0.1") },
		`local address: address "ff02::1"`:        func(c *Config) { c.Peers[1].LocalAddress = addr("ff02::1") },
		`next hop "::1" is not a usable`:          func(c *Config) { c.Peers[0].NextHopIPv4 = addr("::1") },
		`next hop "10.0.0.1" is not`:              func(c *Config) { c.Peers[0].NextHopIPv6 = addr("10.0.0.1") },
		"import: no prefix":                       func(c *Config) { c.Peers[0].Import = []ImportRule{{}} },
		"import: lengths 0 to 33":                 func(c *Config) { c.Peers[0].Import = []ImportRule{{Prefix: prefix("0.0.0.0/0"), Max: 33}} },
		"import: lengths 7 to 8":                  func(c *Config) { c.Peers[0].Import = []ImportRule{{Prefix: prefix("10.0.0.0/8"), Min: 7, Max: 8}} },
		"import: lengths 9 to 8":                  func(c *Config) { c.Peers[0].Import = []ImportRule{{Prefix: prefix("10.0.0.0/8"), Min: 9, Max: 8}} },
		`advertise: prefix "10.0.0.1/8"`:          func(c *Config) { c.Advertise = advertise("10.0.0.1/8") },
		`prefix "10.0.0.0/8" named twice`:         func(c *Config) { c.Advertise = advertise("10.0.0.0/8", "10.0.0.0/8") },
		`advertise "198.51.100.0/28": prepend 17`: func(c *Config) { c.Advertise[0].Prepend = new(uint8(17)) },
		`advertise "2001:db8::/32": more than 64`: func(c *Config) { c.Advertise[1].LargeCommunities = make([]LargeCommunity, 65) },
		"export: more than 64 communities":        func(c *Config) { c.Peers[0].Export.Communities = make([]uint32, 65) },
		`peer "172.16.0.2": password from both`:   func(c *Config) { c.Peers[0].PasswordFile, c.Peers[0].PasswordEnv = "/a", "B" },
		"shutdown message":                        func(c *Config) { c.Peers[0].ShutdownMessage = strings.Repeat("x", 129) },
		"local ASN 65535 is reserved":             func(c *Config) { c.Peers[0].LocalASN = 65535 },
		"local ASN 65100 is for peers":            func(c *Config) { c.Peers[0].LocalASN, c.Peers[0].ASN = 65100, 64512 },
		"TTL security and multihop":               func(c *Config) { c.Peers[0].TTLSecurity, c.Peers[0].Multihop = 1, 2 },
		"TTL security of 255":                     func(c *Config) { c.Peers[0].TTLSecurity = 255 },
		"peers that dial us over IPv6":            func(c *Config) { c.Peers[1].TTLSecurity, c.Peers[1].Passive = 1, true },
		"extended next hops are for":              func(c *Config) { c.Peers[0].ExtendedNextHop = true },
		"a bound of sessions is for a range":      func(c *Config) { c.Peers[0].MaxSessions = 3 },
		"both an address and a range":             func(c *Config) { c.Peers[0].Range = prefix("10.0.0.0/8") },
		`peer "10.0.0.1/8": range: prefix`:        func(c *Config) { c.Peers[0].Address, c.Peers[0].Range = netip.Addr{}, prefix("10.0.0.1/8") },
		"a range needs a port": func(c *Config) {
			c.Peers[0].Address, c.Peers[0].Range, c.ListenPort = netip.Addr{}, prefix("10.0.0.0/8"), -1
		},
		"a range cannot be shut down": func(c *Config) {
			c.Peers[0].Address, c.Peers[0].Range, c.Peers[0].Shutdown = netip.Addr{}, prefix("10.0.0.0/8"), true
		},
		"sessions are not between": func(c *Config) {
			c.Peers[0].Address, c.Peers[0].Range, c.Peers[0].MaxSessions = netip.Addr{}, prefix("10.0.0.0/8"), 4097
		},
		`peer "fd00:16::2": the range and peer "fd00::/16" overlap`: func(c *Config) { c.Peers[0].Address, c.Peers[0].Range = netip.Addr{}, prefix("fd00::/16") },
		"a warning at 101 percent":                                  func(c *Config) { c.Peers[0].MaxPrefixesWarning = 101 },
		"restart after -1s":                                         func(c *Config) { c.Peers[0].MaxPrefixesRestart = -time.Second },
		`import: AS path "("`:                                       func(c *Config) { c.Peers[0].Import = []ImportRule{{Prefix: prefix("0.0.0.0/0"), ASPath: "("}} },
		"export: local preference 0":                                func(c *Config) { c.Peers[0].Export.LocalPref = new(uint32) },
		`reject: prefix "::ffff:0.0.0.0/96`:                         func(c *Config) { c.Reject = prefixList("::ffff:0:0/96") },
	} {
		c := goodConfig()
		change(&c)
		err := errors.Join(c.Validate()...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	var all Config
	if errs := all.Validate(); len(errs) != 3 {
		t.Errorf("not all errors at once: %v", errs)
	}
}

func TestNormalised(t *testing.T) {
	a, b := goodConfig().normalised(), goodConfig()
	b.Peers[0], b.Peers[1] = b.Peers[1], b.Peers[0]
	b.Advertise[0], b.Advertise[1] = b.Advertise[1], b.Advertise[0]
	b.ListenPort = 179
	b.Peers[0].ConnectRetry = 5 * time.Second
	b = b.normalised()
	for i := range a.Peers {
		if !sameSession(a.Peers[i], b.Peers[i]) || a.Peers[i].ConnectRetry != b.Peers[i].ConnectRetry {
			t.Errorf("peers differ: %+v, %+v", a.Peers[i], b.Peers[i])
		}
	}
	if !sameServer(a, b) || !sameRestart(a.GracefulRestart, b.GracefulRestart) || a.Advertise[0].Prefix != b.Advertise[0].Prefix {
		t.Errorf("differ: %+v, %+v", a, b)
	}
	if p := a.Peers[1]; !p.IPv4 || p.IPv6 || p.HoldTime != 90*time.Second || p.KeepaliveTime != 30*time.Second || p.Port != 179 {
		t.Errorf("defaults: %+v", p)
	}
}

// FuzzConfig holds that whatever Validate lets through is applied without a
// panic, also on top of another configuration. Nothing is dialled.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("abcdefgh"), []byte("ijklmnop"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		s := newSpeaker(slog.New(slog.DiscardHandler), func() {}, timing{prefixBackoff: time.Hour, resync: time.Hour, sync: time.Hour})
		defer s.Close(false)
		for _, seed := range [][]byte{one, two} {
			c := randomConfig(seed)
			err := s.Set(t.Context(), []Config{c})
			if errs := c.Validate(); (len(errs) == 0) != (err == nil) {
				t.Fatalf("valid %v, set %v: %+v", errs, err, c)
			}
			s.State()
		}
	})
}

func randomAttributes(rnd *rand.Rand) Attributes {
	var a Attributes
	if rnd.IntN(2) == 0 {
		a.Communities, a.LargeCommunities = make([]uint32, rnd.IntN(3)), make([]LargeCommunity, rnd.IntN(3))
	}
	if rnd.IntN(2) == 0 {
		med, pref, prepend := rnd.Uint32(), rnd.Uint32N(3), uint8(rnd.IntN(18))
		a.MED, a.LocalPref, a.Prepend = &med, &pref, &prepend
	}
	return a
}

// randomConfig is wrong in about half of all cases.
func randomConfig(seed []byte) Config {
	var key [32]byte
	copy(key[:], seed)
	rnd := rand.New(rand.NewChaCha8(key))
	pick := func(list ...string) string {
		if rnd.IntN(12) == 0 {
			return list[len(list)-1] // the bad one
		}
		return list[rnd.IntN(len(list)-1)]
	}
	address := func() netip.Addr {
		a, _ := netip.ParseAddr(pick("172.16.0.2", "172.16.0.3", "fd00:16::2", "255.1.2.3", "::ffff:1.2.3.4"))
		return a
	}
	network := func() netip.Prefix {
		p, _ := netip.ParsePrefix(pick("10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::/48", "198.51.100.7/32", "10.0.0.1/8"))
		return p
	}
	c := Config{
		Network: "red", ASN: 64512 + rnd.Uint32N(2), RouterID: address(), ListenPort: -1, Restarting: rnd.IntN(2) == 0,
		Draining: rnd.IntN(4) == 0,
	}
	if !c.RouterID.Is4() && rnd.IntN(4) > 0 {
		c.RouterID = addr("10.0.0.1")
	}
	for range rnd.IntN(3) {
		p := Peer{Address: address(), ASN: 64512 + rnd.Uint32N(3), Passive: true, Port: uint16(rnd.Uint32()),
			HoldTime: time.Duration(rnd.IntN(9)) * 3 * time.Second, Multihop: uint8(rnd.IntN(3)),
			IPv4: rnd.IntN(2) == 0, IPv6: rnd.IntN(2) == 0, MaxPrefixes: rnd.Uint32N(3)}
		if rnd.IntN(3) == 0 {
			p.Export = randomAttributes(rnd)
			p.TTLSecurity, p.LocalASN, p.Shutdown = uint8(rnd.IntN(2)), 65100*rnd.Uint32N(2), rnd.IntN(2) == 0
			p.PasswordEnv, p.AddPath, p.ExtendedNextHop = []string{"", "PATH", "EGRET_NOT_SET"}[rnd.IntN(3)], rnd.IntN(2) == 0, rnd.IntN(2) == 0
		}
		if rnd.IntN(2) == 0 {
			p.NextHopIPv4, p.NextHopIPv6 = addr("172.16.0.1"), addr("fd00:16::1")
		}
		for range rnd.IntN(3) {
			n := network()
			p.Import = append(p.Import, ImportRule{Prefix: n, Min: max(n.Bits(), 0), Max: 32})
		}
		c.Peers = append(c.Peers, p)
	}
	for range rnd.IntN(4) {
		c.Advertise = append(c.Advertise, Advertisement{Prefix: network(), Attributes: randomAttributes(rnd)})
	}
	if rnd.IntN(2) == 0 {
		c.GracefulRestart = &GracefulRestart{RestartTime: time.Duration(rnd.IntN(5)) * time.Second}
	}
	return c
}
