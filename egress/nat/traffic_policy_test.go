package nat

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"

	"github.com/egret-router/egret/lab"
)

// decided is overlapConfig with red's client having one action for everything.
func decided(action Action) Config {
	cfg := overlapConfig()
	for i := range cfg.Policies[0].Rules {
		cfg.Policies[0].Rules[i].Action = action
	}
	return cfg
}

// Reject answers at once, in terms that the client's programs understand.
func rejectTraffic(w *world) {
	w.become(decided(Reject))
	before := w.counter(counterReject)
	for _, f := range lab.Families() {
		_, err := w.dial(w.cl, "tcp", netip.AddrPortFrom(client(f, 10), 48200), netip.AddrPortFrom(servers[f], port), deadline)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			w.t.Errorf("tcp over %s: %v", f, err)
		}
		_, err = ask(w.flow("udp", f, 10, 48201), deadline)
		if want := map[lab.Family]error{lab.IPv4: syscall.EHOSTUNREACH, lab.IPv6: syscall.EACCES}[f]; !errors.Is(err, want) {
			w.t.Errorf("udp over %s: %v, want %v", f, err, want)
		}
		out, err := w.cl.Run("ping", "-n", "-c", "1", "-W", "60", "-I", client(f, 10).String(), servers[f].String())
		if err == nil || !strings.Contains(out, "Packet filtered") && !strings.Contains(out, "prohibited") {
			w.t.Errorf("ping over %s: %v\n%s", f, err, out)
		}
	}
	if got := w.counter(counterReject) - before; got != 6 {
		w.t.Errorf("%d packets counted as rejected, want 6", got)
	}
}

// Edits move no established flow, but drop and reject end it.
func editTraffic(w *world) {
	for i, f := range lab.Families() {
		srcPort := uint16(48300 + 10*i)
		tcp, udp := w.flow("tcp", f, 10, srcPort), w.flow("udp", f, 10, srcPort)
		both := func() {
			w.t.Helper()
			w.mustAsk(tcp, "red", pools[f])
			w.mustAsk(udp, "red", pools[f])
		}
		both()
		none, other := overlapConfig(), overlapConfig()
		none.Policies = none.Policies[1:]
		other.Policies[0].Rules = other.Policies[1].Rules
		for i, cfg := range []Config{decided(Skip), none, other} {
			w.t.Logf("%s: edit %d", f, i)
			w.become(cfg)
			both()
		}
		w.mustAsk(w.flow("udp", f, 10, srcPort+1), "blue", pools[f])

		dropped := w.counter(counterDrop)
		w.become(decided(Drop))
		if got, err := ask(udp, silence); err == nil {
			w.t.Errorf("%s: dropped, and yet %q", f, got)
		}
		if w.counter(counterDrop) == dropped {
			w.t.Errorf("%s: nothing counted as dropped", f)
		}
		w.become(decided(Reject))
		if _, err := ask(tcp, deadline); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			w.t.Errorf("%s: an established connection was rejected with %v", f, err)
		}
		w.become(overlapConfig())
		w.mustAsk(udp, "red", pools[f])
	}

	// When the exit goes, its flows end instead of leaving by another way.
	udp := w.flow("udp", lab.IPv4, 10, 48350)
	w.mustAsk(udp, "red", pools[lab.IPv4])
	cfg := overlapConfig()
	cfg.Networks, cfg.Pools, cfg.Exits, cfg.Policies = cfg.Networks[1:], cfg.Pools[1:], cfg.Exits[1:], cfg.Policies[1:]
	seen := len(w.sniffers["out"].all())
	w.become(cfg)
	if got, err := ask(udp, silence); err == nil {
		w.t.Errorf("without its exit a flow got %q", got)
	}
	for _, p := range w.sniffers["out"].all()[seen:] {
		if l := p.NetworkLayer(); l != nil && sourceOf(l).String() == pools[lab.IPv4] {
			w.t.Errorf("a pool address left by the normal way: %s", p)
		}
	}
}

// A flow that went the normal way before a policy named its client stays there:
// it has no translation.
func oldFlowTraffic(w *world) {
	w.become(Config{})
	normal := netip.MustParseAddrPort("203.0.113.5:8080")
	conn := w.mustDial("udp", netip.AddrPortFrom(client(lab.IPv4, 10), 48400), normal)
	w.mustAsk(conn, "out", "10.244.0.10")
	cfg := overlapConfig()
	cfg.Policies[0].Rules = append(cfg.Policies[0].Rules, rule("0.0.0.0/0", ToExit, "red.pool"))
	w.become(cfg)
	w.mustAsk(conn, "out", "10.244.0.10")
	fresh := w.mustDial("udp", netip.AddrPortFrom(client(lab.IPv4, 10), 48401), normal)
	if got, err := ask(fresh, silence); err == nil {
		w.t.Errorf("a new flow took the normal way: %q", got)
	}
}

// Replies of a client to a connection from the normal side go back there,
// though its policy would send it to an exit, or drop.
func inboundTraffic(w *world) {
	w.serve(w.cl, netip.AddrPortFrom(client(lab.IPv4, 10), 8081))
	for _, action := range []Action{ToExit, Drop, Reject} {
		cfg := overlapConfig()
		cfg.Policies[0].Rules = append(cfg.Policies[0].Rules, rule("0.0.0.0/0", action, "red.pool"))
		w.become(cfg)
		conn, err := w.dial(w.out, "tcp", netip.MustParseAddrPort("203.0.113.5:0"), netip.AddrPortFrom(client(lab.IPv4, 10), 8081), deadline)
		if err != nil {
			w.t.Fatalf("%d: %v", action, err)
		}
		w.mustAsk(conn, "cl", "203.0.113.5")
		w.out.Must("ping", "-n", "-c", "1", "-W", "60", "-I", "203.0.113.5", "10.244.0.10")
	}
}

// Clients without a policy take the normal way, or none.
func unmatchedTraffic(w *world) {
	normal := netip.MustParseAddrPort("203.0.113.5:8080")
	w.mustAsk(w.mustDial("tcp", netip.AddrPortFrom(client(lab.IPv4, 13), 0), normal), "out", "10.244.0.13")
	cfg := overlapConfig()
	cfg.DropUnmatched = true
	w.become(cfg)
	before := w.counter(counterUnmatched)
	conn := w.mustDial("udp", netip.AddrPortFrom(client(lab.IPv4, 13), 0), normal)
	if got, err := ask(conn, silence); err == nil {
		w.t.Errorf("a client without a policy got %q", got)
	}
	if got := w.counter(counterUnmatched) - before; got != 1 {
		w.t.Errorf("%d packets counted, want 1", got)
	}
	// The gateway itself and other clients are never classified.
	w.cl.Must("ping", "-n", "-c", "1", "-W", "60", "-I", client(lab.IPv4, 13).String(), "10.244.0.1")
	w.cl.Must("ping", "-n", "-c", "1", "-W", "60", "-I", client(lab.IPv6, 13).String(), "fd00:244::1")
}
