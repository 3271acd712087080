package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// startTimeout is how long a daemon may take until it answers on its control socket.
const startTimeout = 60 * time.Second

// A Router is a real routing daemon in a namespace: FRR or BIRD.
type Router struct {
	// Kind is "frr" or "bird".
	Kind string
	// NS is where it runs; only one router fits into a namespace.
	NS *NS

	daemon daemon
	config RouterConfig
	procs  []*Proc
}

// daemon is what differs between the two.
type daemon interface {
	// start runs the programs and waits until they answer.
	start(ns *NS, c RouterConfig) ([]*Proc, error)
	// change applies the difference between two configurations to the running programs.
	change(ns *NS, from, to RouterConfig) error
	// text is the configuration in the daemon's own language.
	text(c RouterConfig) string
	// command asks the running daemon.
	command(ns *NS, words ...string) (string, error)
	routes(ns *NS, f Family) (map[netip.Prefix][]netip.Addr, error)
	filtered(ns *NS, f Family, peers []RouterPeer) ([]netip.Prefix, error)
	state(ns *NS, peer netip.Addr) (string, error)
	bfd(ns *NS) ([]BFDSession, error)
}

// StartFRR starts zebra and bgpd in a namespace. See Feature FRR.
func StartFRR(ns *NS, c RouterConfig) (*Router, error) { return startRouter("frr", frr{}, ns, c) }

// StartBIRD starts BIRD 2 in a namespace. See Feature BIRD.
func StartBIRD(ns *NS, c RouterConfig) (*Router, error) { return startRouter("bird", bird{}, ns, c) }

func startRouter(kind string, d daemon, ns *NS, c RouterConfig) (*Router, error) {
	r := &Router{Kind: kind, NS: ns, daemon: d, config: c}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := ns.Sysctl(key, "1"); err != nil {
			return nil, err
		}
	}
	return r, r.Start()
}

// Start starts the daemon again after Stop or Kill9, with its last configuration.
func (r *Router) Start() error {
	procs, err := r.daemon.start(r.NS, r.config)
	r.procs = procs
	if err != nil {
		return fmt.Errorf("start %s in %q: %w", r.Kind, r.NS.Name, err)
	}
	return nil
}

// Stop ends the daemon in order: it tells its peers.
func (r *Router) Stop() error {
	var errs []error
	for _, p := range slices.Backward(r.procs) {
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}

// Kill9 kills the daemon; its kernel closes its sessions.
func (r *Router) Kill9() {
	for _, p := range r.procs {
		p.Kill9()
	}
}

// Freeze stops the daemon's execution: its sessions stay open and silent until
// the hold timer of the peer expires, and its kernel goes on forwarding.
func (r *Router) Freeze() error { return r.each((*Proc).Pause) }

// Thaw lets a frozen daemon go on.
func (r *Router) Thaw() error { return r.each((*Proc).Resume) }

func (r *Router) each(do func(*Proc) error) error {
	var errs []error
	for _, p := range r.procs {
		errs = append(errs, do(p))
	}
	return errors.Join(errs...)
}

// PIDs are the ids of the router's processes.
func (r *Router) PIDs() []int {
	var pids []int
	for _, p := range r.procs {
		pids = append(pids, p.PID())
	}
	return pids
}

// Log is what the router's programs have written since they were started last.
func (r *Router) Log() string {
	var b strings.Builder
	for _, p := range r.procs {
		b.WriteString(p.Log())
	}
	return b.String()
}

// Config is the present configuration.
func (r *Router) Config() RouterConfig { return r.config }

// Announce replaces the list of announced prefixes of the running daemon.
func (r *Router) Announce(prefixes ...netip.Prefix) error {
	to := r.config
	to.Announce = prefixes
	if err := r.daemon.change(r.NS, r.config, to); err != nil {
		return fmt.Errorf("change announcements of %s in %q: %w", r.Kind, r.NS.Name, err)
	}
	r.config = to
	return nil
}

// Command asks the daemon in its own language and returns its answer: for FRR
// every argument is a line that vtysh would pass to bgpd, for BIRD the
// arguments are the words of one command of birdc.
func (r *Router) Command(words ...string) (string, error) { return r.daemon.command(r.NS, words...) }

// Routes returns the routes of a family that were learned by BGP and accepted,
// with the next hops of all their paths.
func (r *Router) Routes(f Family) (map[netip.Prefix][]netip.Addr, error) {
	routes, err := r.daemon.routes(r.NS, f)
	if err != nil {
		return nil, fmt.Errorf("%s routes of %s in %q: %w", f, r.Kind, r.NS.Name, err)
	}
	return routes, nil
}

// Filtered returns the prefixes of a family that peers sent and that Accept
// refused. From a gateway that exports only its pools there are none.
func (r *Router) Filtered(f Family) ([]netip.Prefix, error) {
	prefixes, err := r.daemon.filtered(r.NS, f, r.config.of(f).Peers)
	if err != nil {
		return nil, fmt.Errorf("filtered %s routes of %s in %q: %w", f, r.Kind, r.NS.Name, err)
	}
	return prefixes, nil
}

// BGPState returns the state of the session with a peer in the words of RFC
// 4271: Idle, Connect, Active, OpenSent, OpenConfirm, Established.
func (r *Router) BGPState(peer netip.Addr) (string, error) {
	state, err := r.daemon.state(r.NS, peer)
	if err != nil {
		return "", fmt.Errorf("session of %s in %q with %s: %w", r.Kind, r.NS.Name, peer, err)
	}
	return state, nil
}

// WaitEstablished waits until all sessions of the router are established.
func (r *Router) WaitEstablished(ctx context.Context, deadline time.Duration) error {
	return Poll(ctx, deadline, "sessions of "+r.NS.Name, func() error {
		for _, p := range r.config.Peers {
			if state, err := r.BGPState(p.Address); err != nil || state != "Established" {
				return errors.Join(fmt.Errorf("%s is %q", p.Address, state), err)
			}
		}
		return nil
	})
}

// WaitRoute waits until the router has learned a prefix, or, if present is
// false, has no longer.
func (r *Router) WaitRoute(ctx context.Context, deadline time.Duration, prefix netip.Prefix, present bool) error {
	what := fmt.Sprintf("%s in the routes of %s: %t", prefix, r.NS.Name, present)
	return Poll(ctx, deadline, what, func() error {
		routes, err := r.Routes(FamilyOf(prefix.Addr()))
		if err != nil {
			return err
		}
		if _, has := routes[prefix]; has != present {
			return fmt.Errorf("it has %v", routes)
		}
		return nil
	})
}

// startDaemon starts one program of a router and waits until check succeeds.
func startDaemon(ns *NS, name string, args []string, check func() error) (*Proc, error) {
	p, err := ns.Start(name, args...)
	if err != nil {
		return nil, err
	}
	err = Poll(ns.lab.ctx, startTimeout, name+" in "+ns.Name, func() error {
		if !p.Running() {
			return Final(fmt.Errorf("%s: %s", p.state(), tail(p.Log(), 20)))
		}
		return check()
	})
	return p, err
}

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }
