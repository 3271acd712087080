package nat

import (
	"net/netip"
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func addrs(texts ...string) []netip.Addr {
	out := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func rule(destination string, action Action, exit string) Rule {
	return Rule{Destination: netip.MustParsePrefix(destination), Action: action, Exit: exit}
}

const (
	testReturn = 0x20000000
	redMark    = 0x10010001
	blueMark   = 0x10020002
)

// smallConfig is one network with one address.
func smallConfig() Config {
	return Config{
		ClientInterfaces: []string{"eth0"},
		ClientPrefixes:   prefixes("10.244.0.0/16"),
		ReturnMark:       testReturn,
		Networks: []Network{{
			Name: "red", Device: "red", Ports: []string{"eth1"}, Zone: 40001,
			Sources: prefixes("198.51.100.0/28"), Own: addrs("172.16.0.1"),
		}},
		Pools:    []Pool{{Name: "red-pool", Network: "red", ID: 1, Pool4: addrs("198.51.100.1")}},
		Exits:    []Exit{{Name: "red.pool", Network: "red", Mark: redMark, Pool: "red-pool"}},
		Policies: []Policy{{Name: "team-a", Clients: prefixes("10.244.1.0/24"), Rules: []Rule{rule("10.0.0.0/8", ToExit, "red.pool")}}},
	}
}

// overlapConfig is two networks with the same addresses everywhere.
func overlapConfig() Config {
	network := func(name, port string, zone uint16) Network {
		return Network{
			Name: name, Device: name, Ports: []string{port}, Zone: zone,
			Sources: prefixes("198.51.100.0/31", "2001:db8:e::/127"), Own: addrs("172.16.0.1", "fd00:16::1"),
		}
	}
	pool := func(network string, id uint16) Pool {
		return Pool{Name: network + "-pool", Network: network, ID: id, Pool4: addrs("198.51.100.0"), Pool6: addrs("2001:db8:e::")}
	}
	exit := func(network string, mark uint32) Exit {
		return Exit{Name: network + ".pool", Network: network, Mark: mark, Pool: network + "-pool"}
	}
	policy := func(name, exit string, clients ...string) Policy {
		return Policy{Name: name, Clients: prefixes(clients...), Rules: []Rule{
			rule("10.0.0.0/24", ToExit, exit), rule("fd00:10::/64", ToExit, exit),
		}}
	}
	return Config{
		ClientInterfaces: []string{"eth0"},
		ClientPrefixes:   prefixes("10.244.0.0/16", "fd00:244::/64"),
		ReturnMark:       testReturn,
		Networks:         []Network{network("red", "eth1", 40001), network("blue", "eth2", 40002)},
		Pools:            []Pool{pool("red", 1), pool("blue", 2)},
		Exits:            []Exit{exit("red", redMark), exit("blue", blueMark)},
		Policies: []Policy{
			policy("team-red", "red.pool", "10.244.0.10/32", "fd00:244::10/128"),
			policy("team-blue", "blue.pool", "10.244.0.11/32", "fd00:244::11/128"),
		},
	}
}

// dualConfig is everything in two families, with several addresses to a pool
// and several ports to a network, and a name that nft cannot spell.
func dualConfig() Config {
	cfg := overlapConfig()
	cfg.ClientInterfaces = append(cfg.ClientInterfaces, "eth3.7")
	cfg.Networks[0].Ports = append(cfg.Networks[0].Ports, "eth4")
	cfg.Networks[0].Sources = prefixes("198.51.100.0/28", "2001:db8:e::/124", "198.51.100.8/31")
	cfg.Pools[0].Pool4 = addrs("198.51.100.1", "198.51.100.2", "198.51.100.3")
	cfg.Pools[0].Pool6 = addrs("2001:db8:e::1", "2001:db8:e::2")
	cfg.Pools[1].PerFlow = true
	cfg.Pools[1].Pool4 = addrs("198.51.100.0", "198.51.100.1")
	cfg.Pools[1].Pool6 = addrs("2001:db8:e::", "2001:db8:e::1")
	cfg.Policies = append(cfg.Policies, Policy{
		Name: "space/team übrig", Clients: prefixes("10.244.8.0/21", "fd00:244:0:0:8::/80"),
		Rules: []Rule{rule("0.0.0.0/0", ToExit, "blue.pool"), rule("::/0", ToExit, "red.pool")},
	})
	return cfg
}

// actionsConfig has every action, nested, and clients without a policy.
func actionsConfig() Config {
	cfg := overlapConfig()
	cfg.DropUnmatched = true
	cfg.Pools = append(cfg.Pools, Pool{Name: "red-empty", Network: "red", ID: 3})
	cfg.Exits = append(cfg.Exits, Exit{Name: "red.empty", Network: "red", Mark: 0x10010003, Pool: "red-empty"})
	cfg.Exits = append(cfg.Exits, Exit{Name: "red.drained", Network: "red", Mark: 0x10030001, Pool: "red-pool", Refuse: Drop},
		Exit{Name: "red.closing", Network: "red", Mark: 0x10040001, Pool: "red-pool", Refuse: Reject})
	cfg.Policies = append(cfg.Policies,
		Policy{Name: "nested", Clients: prefixes("10.244.0.0/24", "fd00:244::/112"), Rules: []Rule{
			rule("0.0.0.0/0", ToExit, "red.pool"), rule("10.0.0.0/8", Skip, ""), rule("10.5.0.0/16", ToExit, "blue.pool"),
			rule("10.5.5.0/24", Skip, ""), rule("10.5.5.5/32", Reject, ""), rule("192.0.2.0/24", Drop, ""),
			rule("192.0.2.128/25", Drop, ""), rule("203.0.113.0/24", ToExit, "red.gone"), rule("255.0.0.0/8", ToExit, "red.empty"),
			rule("198.18.0.0/16", ToExit, "red.drained"), rule("198.19.0.0/16", ToExit, "red.closing"), rule("fd00:18::/32", ToExit, "red.drained"),
			rule("::/0", ToExit, "blue.pool"), rule("fd00:10::/32", Reject, ""), rule("fd00:10:1::/48", Skip, ""),
		}},
		Policy{Name: "idle", Clients: prefixes("10.244.9.0/24")})
	return cfg
}

// spreadConfig has clients spread over exits, one of which is in fallback and
// one of which is not there.
func spreadConfig() Config {
	cfg := overlapConfig()
	cfg.Exits = append(cfg.Exits,
		Exit{Name: "red.second", Network: "red", Mark: 0x10030001, Pool: "red-pool"},
		Exit{Name: "red.falling", Network: "red", Mark: 0x10040001, Pool: "red-pool", Fallback: true})
	cfg.Spreads = []Spread{
		{Name: "two", Exits: []string{"red.pool", "red.second"}},
		{Name: "four", Exits: []string{"red.pool", "red.gone", "red.falling", "red.second"}},
		{Name: "one", Exits: []string{"red.falling"}},
		{Name: "none"},
	}
	cfg.Policies = append(cfg.Policies, Policy{Name: "spread", Clients: prefixes("10.244.0.0/24", "fd00:244::/112"), Rules: []Rule{
		rule("0.0.0.0/0", ToExit, "two"), rule("10.1.0.0/16", ToExit, "four"), rule("10.2.0.0/16", ToExit, "one"),
		rule("10.3.0.0/16", ToExit, "none"), rule("10.4.0.0/16", ToExit, "gone"), rule("10.5.0.0/16", ToExit, "red.falling"),
		rule("::/0", ToExit, "four"),
	}})
	return cfg
}

func testConfigs() map[string]Config {
	return map[string]Config{
		"spread": spreadConfig(),
		"empty":  {}, "small": smallConfig(), "overlap": overlapConfig(), "dual": dualConfig(), "actions": actionsConfig(),
	}
}

// renderFew renders with few buckets, for tests that are about something else:
// listing a thousand elements takes an emulated machine its time.
func renderFew(cfg Config) Ruleset { return render(cfg, func(int) int { return 8 }) }
