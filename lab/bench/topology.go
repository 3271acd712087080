package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/lab"
)

// nowhere is a hardware address that nobody has: who receives a packet for it
// discards it first thing, at the same small cost in all cases.
const nowhere = "02:00:00:00:00:99"

// A testbed is the three namespaces of one case.
//
//	source src0 -- cl0 router u0 (u1 ...) -- s0 (s1 ...) sink
//	source gen0 ------------------------------ gen1 sink
type testbed struct {
	bench                benchCase
	lab                  *lab.Lab
	source, router, sink *lab.NS
	gen                  map[cell]*generator
	loaded               map[*lab.NS]*generator // whose streams pktgen has there
}

// settings that keep flows and neighbours for as long as it takes: while the
// guest waits its clock may run fast.
var patientSettings = map[string]string{
	"net.netfilter.nf_conntrack_udp_timeout":        "86400",
	"net.netfilter.nf_conntrack_udp_timeout_stream": "86400",
	"net.netfilter.nf_flowtable_udp_timeout":        "86400",
}

// build makes the testbed of a case and the flows that it is measured with.
func (o guestOptions) build(ctx context.Context, c benchCase) (*testbed, error) {
	l, err := lab.Start(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	t := &testbed{bench: c, lab: l, loaded: map[*lab.NS]*generator{}}
	if err := t.wire(); err != nil {
		return nil, errors.Join(fmt.Errorf("build the testbed of %q: %w", c.Name, err), t.close())
	}
	if err := o.setup(ctx, t); err != nil {
		l.WriteLogs(os.Stderr, 40)
		return nil, errors.Join(fmt.Errorf("set up the router of %q: %w", c.Name, err), t.close())
	}
	if err := t.neighbours(); err != nil {
		return nil, errors.Join(fmt.Errorf("neighbours of %q: %w", c.Name, err), t.close())
	}
	return t, nil
}

// close first empties pktgen, which would wait for seconds, with everybody else,
// for each stream on a device that disappears.
func (t *testbed) close() error {
	var errs []error
	for ns := range t.loaded {
		errs = append(errs, ns.Do(forget))
	}
	return errors.Join(append(errs, t.lab.Close())...)
}

func (t *testbed) wire() error {
	for name, ns := range map[string]**lab.NS{"source": &t.source, "router": &t.router, "sink": &t.sink} {
		var err error
		if *ns, err = t.lab.Namespace(name); err != nil {
			return err
		}
	}
	switch t.bench.Kind {
	case generatorOnly:
		return errors.Join(t.source.IP("link add src0 type dummy", "link set src0 up"), t.sink.IP("link add s0 type dummy", "link set s0 up"))
	case wireOnly:
		return t.lab.Link(t.source, "src0", t.sink, "s0")
	}
	if err := t.lab.Link(t.source, "src0", t.router, "cl0"); err != nil {
		return err
	}
	for i := range t.bench.Networks {
		if err := t.lab.Link(t.router, fmt.Sprintf("u%d", i), t.sink, fmt.Sprintf("s%d", i)); err != nil {
			return err
		}
	}
	for key, value := range patientSettings {
		if err := t.router.Sysctl(key, value); err != nil {
			return err
		}
	}
	return t.router.IP("addr add 192.168.0.1/24 dev cl0", "addr add fd00:c0::1/64 dev cl0 nodad",
		"route add "+clients4.String()+" via 192.168.0.2", "route add "+clients6.String()+" via fd00:c0::2")
}

// setup makes the router what the case wants.
func (o guestOptions) setup(ctx context.Context, t *testbed) error {
	switch t.bench.Kind {
	case plainForward:
		return t.plain("")
	case masquerade:
		return t.masquerade()
	case egretRouter:
		return o.egret(ctx, t)
	}
	return nil
}

// plain configures the uplink by hand; table is the words that put its routes elsewhere.
func (t *testbed) plain(table string) error {
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := t.router.Sysctl(key, "1"); err != nil {
			return err
		}
	}
	for _, dev := range []string{"all", "cl0", "u0"} {
		if err := t.router.Sysctl("net.ipv4.conf."+dev+".rp_filter", "0"); err != nil {
			return err
		}
	}
	return t.router.IP("addr add "+gateway4+"/24 dev u0", "addr add "+gateway6+"/64 dev u0 nodad",
		"route add "+servers4.String()+" via "+peer4+table, "route add "+servers6.String()+" via "+peer6+table)
}

// masquerade is what people do without Egret: a VRF, a rule, leaked routes
// back to the clients, iptables.
func (t *testbed) masquerade() error {
	if err := t.router.IP("link add red type vrf table 1001", "link set red up", "link set u0 master red"); err != nil {
		return err
	}
	if err := t.plain(" dev u0 table 1001"); err != nil {
		return err
	}
	for family, from := range map[string]netip.Prefix{"-4": clients4, "-6": clients6} {
		if _, err := t.router.Run("ip", family, "rule", "add", "from", from.String(), "lookup", "1001", "pref", "500"); err != nil {
			return err
		}
	}
	err := t.router.IP(
		"route add "+clients4.String()+" via 192.168.0.2 dev cl0 table 1001", "route add "+clients6.String()+" via fd00:c0::2 dev cl0 table 1001")
	if err != nil {
		return err
	}
	for _, program := range []string{"iptables", "ip6tables"} {
		if _, err := t.router.Run(program, "-t", "nat", "-A", "POSTROUTING", "-o", "u0", "-j", "MASQUERADE"); err != nil {
			return err
		}
	}
	return nil
}

// egret runs the daemon until it has converged, and ends it the hard way: the
// data plane stays, and nothing disturbs the measurement.
func (o guestOptions) egret(ctx context.Context, t *testbed) error {
	path := filepath.Join(t.lab.Dir, "egret.yaml")
	if err := os.WriteFile(path, []byte(egretConfig(t.bench, o.flowtableKnown)), 0o644); err != nil {
		return err
	}
	daemon, err := t.router.Start("egret", o.egretBinary, "run", "--config", path)
	if err != nil {
		return err
	}
	defer daemon.Kill9()
	client := control.NewClient(t.router.Path(control.SocketPath(config.DefaultRunDir)))
	err = lab.Poll(ctx, 10*time.Minute, "Egret to converge", func() error {
		if !daemon.Running() {
			return lab.Final(fmt.Errorf("the daemon has ended: %s", daemon.Log()))
		}
		// Not by the command: starting it is dear in the guest.
		status, err := client.Status(ctx)
		if err != nil {
			return err
		}
		return converged(status, t.bench)
	})
	if err != nil {
		return err
	}
	daemon.Kill9()
	if t.bench.Edit != "" {
		_, err = t.router.Run("sh", "-eu", t.bench.Edit)
	}
	return err
}

// converged says what is missing until everything forwards.
func converged(s *egress.Status, c benchCase) error {
	if s.Round.LastError != "" {
		return fmt.Errorf("last round: %s", s.Round.LastError)
	}
	if len(s.Networks) != c.Networks || len(s.Policies) != c.Policies {
		return fmt.Errorf("%d networks and %d policies, want %d and %d", len(s.Networks), len(s.Policies), c.Networks, c.Policies)
	}
	for _, n := range s.Networks {
		if n.Phase != egress.PhaseUp {
			return fmt.Errorf("network %q is %s: %s", n.Name, n.Phase, n.Reason)
		}
	}
	for _, p := range s.Policies {
		for _, r := range p.Rules {
			if !r.Forwarding {
				return fmt.Errorf("policy %q does not forward", p.Name)
			}
		}
	}
	return nil
}

// neighbours makes both ends discard what reaches them.
func (t *testbed) neighbours() error {
	if t.bench.Kind == generatorOnly || t.bench.Kind == wireOnly {
		return nil
	}
	lines := []string{"neigh replace 192.168.0.2 lladdr " + nowhere + " dev cl0 nud permanent",
		"neigh replace fd00:c0::2 lladdr " + nowhere + " dev cl0 nud permanent"}
	for i := range t.bench.Networks {
		for _, a := range []string{peer4, peer6} {
			lines = append(lines, fmt.Sprintf("neigh replace %s lladdr %s dev u%d nud permanent", a, nowhere, i))
		}
	}
	return t.router.IP(lines...)
}
