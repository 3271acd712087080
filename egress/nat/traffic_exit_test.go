package nat

import (
	"net/netip"

	"github.com/egret-router/egret/lab"
	"github.com/gopacket/gopacket/layers"
)

// Clients go where the bucket of their address says, in both families, and stay
// there with all their flows.
func spreadTraffic(w *world) {
	cfg := overlapConfig()
	cfg.Spreads = []Spread{{Name: "both", Exits: []string{"red.pool", "blue.pool", "blue.pool", "red.pool"}}}
	networks := []string{"red", "blue", "blue", "red"}
	cfg.Policies = []Policy{{Name: "all", Clients: cfg.ClientPrefixes, Rules: []Rule{rule("0.0.0.0/0", ToExit, "both"), rule("::/0", ToExit, "both")}}}
	w.become(cfg)
	seen := map[string]bool{}
	for _, f := range lab.Families() {
		for n := 10; n < 14; n++ {
			server := networks[ClientBucket(client(f, n), 4)]
			seen[server] = true
			for _, network := range []string{"tcp", "udp"} {
				for range 2 {
					w.mustAsk(w.flow(network, f, n, 0), server, pools[f])
				}
			}
		}
	}
	if len(seen) != 2 {
		w.t.Errorf("all clients go to %v", seen)
	}
}

// While an exit is in fallback, new flows take the normal way, and the flows
// that it has stay.
func fallbackTraffic(w *world) {
	cfg := overlapConfig()
	cfg.Policies[0].Rules = []Rule{rule("0.0.0.0/0", ToExit, "red.pool"), rule("::/0", ToExit, "red.pool")}
	w.become(cfg)
	normal := netip.MustParseAddrPort("203.0.113.5:8080")
	old4, old6 := w.flow("tcp", lab.IPv4, 10, 48700), w.flow("udp", lab.IPv6, 10, 48700)
	stays := func() {
		w.t.Helper()
		w.mustAsk(old4, "red", pools[lab.IPv4])
		w.mustAsk(old6, "red", pools[lab.IPv6])
	}
	stays()
	if got, err := ask(w.mustDial("udp", netip.AddrPortFrom(client(lab.IPv4, 10), 48701), normal), silence); err == nil {
		w.t.Errorf("before: %q", got)
	}

	cfg.Exits[0].Fallback = true
	w.become(cfg)
	stays()
	fresh := w.mustDial("tcp", netip.AddrPortFrom(client(lab.IPv4, 10), 48702), normal)
	w.mustAsk(fresh, "out", "10.244.0.10")
	if got, err := ask(w.flow("udp", lab.IPv6, 10, 48703), silence); err == nil {
		w.t.Errorf("a new flow over IPv6, which has no normal way: %q", got)
	}
	for _, p := range w.sniffers["red"].all() {
		if udp, ok := p.TransportLayer().(*layers.UDP); ok && udp.SrcPort == 48703 {
			w.t.Errorf("a new flow went to red: %s", p)
		}
	}

	cfg.Exits[0].Fallback = false
	w.become(cfg)
	stays()
	w.mustAsk(fresh, "out", "10.244.0.10")
	if got, err := ask(w.mustDial("udp", netip.AddrPortFrom(client(lab.IPv4, 10), 48704), normal), silence); err == nil {
		w.t.Errorf("after: %q", got)
	}
}
