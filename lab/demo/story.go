package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/lab"
)

// steps tells the story to its end or to the first step that was not seen.
func (d *demo) steps(ctx context.Context, l *lab.Lab) error {
	story := []struct {
		title string
		tell  func(context.Context) error
	}{
		{"One gateway, two networks with the same addresses", func(context.Context) error { return d.showTopology(l) }},
		{"egret check, egret plan: what would change", d.showPlan},
		{"egret run: BGP comes up in both VRFs", d.showSessions},
		{"Each pool is in its own router's table, and nowhere else", d.showPools},
		{"All clients fetch from one address and port: each gets its own network's server", d.showAnswers},
		{"egret status", d.showStatus},
		{"The link beyond red's router is cut, while BGP stays up", d.showCut},
		{"The link is back", d.showHeal},
		{"kill -9 of the daemon, and a new one, under a steady ping", d.showRestart},
		{"A reload with a broken file", d.showRefusal},
		{"egret teardown leaves nothing", d.showTeardown},
	}
	for _, s := range story {
		d.screen.start(s.title)
		if err := s.tell(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) showTopology(l *lab.Lab) error {
	d.screen.quote(topology)
	d.screen.table(
		[]string{"the same in red and blue:", "destination", lab.Destination4, lab.Destination6},
		[]string{"", "server", lab.Server4, lab.Server6},
		[]string{"", "transfer subnet", lab.Transfer4, lab.Transfer6},
		[]string{"", "our address", lab.TransferGateway4, lab.TransferGateway6},
		[]string{"", "BGP peer", lab.TransferRouter4, lab.TransferRouter6},
	)
	if err := d.build(l); err != nil {
		return err
	}
	d.screen.done("the routers and the servers run; the gateway is an empty machine")
	return nil
}

func (d *demo) showPlan(context.Context) error {
	out, err := d.egret("check", d.ConfigPath())
	if err != nil {
		return err
	}
	d.screen.line("$ egret check lab/demo/egret.yaml")
	d.screen.quote(strings.ReplaceAll(out, d.ConfigPath(), "lab/demo/egret.yaml"))
	if out, err = d.egret("plan", "--config", d.ConfigPath()); err != nil {
		return err
	}
	excerpt := firstWith(out, "chain inet egret guard_uplink", "element inet egret clients4", "snat ip to",
		"net.ipv4.ip_forward", "add red type vrf", "eth1 master red", "unreachable default", "pref 805")
	total, kinds := planCount(out)
	if len(excerpt) == 0 {
		return fmt.Errorf("the plan is not what it should be: %.500q", out)
	}
	d.screen.line("$ egret plan --config lab/demo/egret.yaml")
	for _, line := range excerpt {
		line, _, _ = strings.Cut(line, " comment ") // the hash that the rule is known by
		d.screen.quote(line)
	}
	d.screen.done("%d operations: %s; nothing is changed yet", total, kinds)
	return nil
}

func (d *demo) showSessions(ctx context.Context) error {
	if err := d.launch(); err != nil {
		return err
	}
	rows := [][]string{{"as seen by", "", "peer", "session"}}
	for _, u := range d.Upstreams() {
		err := u.Router.WaitEstablished(ctx, patience)
		if err != nil && !d.daemon.Running() {
			err = errors.Join(errors.New("the daemon has ended"), err)
		}
		if err != nil {
			return err
		}
		for _, peer := range []string{lab.TransferGateway4, lab.TransferGateway6} {
			state, err := u.Router.BGPState(netip.MustParseAddr(peer))
			if err != nil {
				return err
			}
			rows = append(rows, []string{d.screen.network(u.Name) + " router", strings.ToUpper(u.Router.Kind), peer, state})
		}
	}
	d.screen.table(rows...)
	d.screen.done("four sessions, with equal addresses in both VRFs")
	return nil
}

func (d *demo) showPools(ctx context.Context) error {
	if err := d.waitServing(ctx); err != nil {
		return err
	}
	var rows [][]string
	for _, u := range d.Upstreams() {
		learned, err := d.learned(u)
		if err != nil {
			return err
		}
		if want := sorted(d.pools[u.Name]); !slices.Equal(learned, want) {
			return fmt.Errorf("%s's router has learned %s, want %s and nothing else", u.Name, join(learned), join(want))
		}
		rows = append(rows, []string{d.screen.network(u.Name) + " router has learned", join(learned)})
	}
	d.screen.table(rows...)
	d.screen.done("exactly these: neither router was sent the other network's pool")
	return nil
}

// learned is all that a router was sent, whether it accepted it or not.
func (d *demo) learned(u *lab.Upstream) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, f := range lab.Families() {
		routes, err := u.Router.Routes(f)
		if err != nil {
			return nil, err
		}
		for p := range routes {
			all = append(all, p)
		}
		filtered, err := u.Router.Filtered(f)
		if err != nil {
			return nil, err
		}
		all = append(all, filtered...)
	}
	return sorted(all), nil
}

func sorted(prefixes []netip.Prefix) []netip.Prefix {
	out := slices.Clone(prefixes)
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// sourcePort is what all clients use at the same time.
const sourcePort = 40000

func (d *demo) showAnswers(ctx context.Context) error {
	if _, err := d.waitPhases(ctx, egress.PhaseUp, egress.PhaseUp); err != nil {
		return err
	}
	type ask struct {
		team   team
		client netip.Addr
		body   string
		err    error
	}
	var asks []ask
	for _, t := range teams() {
		for _, c := range t.clients() {
			asks = append(asks, ask{team: t, client: c})
		}
	}
	var run sync.WaitGroup
	for i := range asks {
		a := &asks[i]
		run.Go(func() { a.body, a.err = d.answered(ctx, a.team, a.client, sourcePort) })
	}
	run.Wait()
	rows := [][]string{{"", "client", "asks", "and the server says"}}
	var errs []error
	for _, a := range asks {
		name, seen, _ := strings.Cut(a.body, " ")
		rows = append(rows, []string{a.team.name, netip.AddrPortFrom(a.client, sourcePort).String(), url(server(a.client)),
			d.screen.network(name) + " " + seen})
		errs = append(errs, a.err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.screen.table(rows...)
	d.screen.done("at the same time, and each was seen as an address of its pool")
	return nil
}

func (d *demo) showStatus(context.Context) error {
	out, err := d.egret("status")
	if err != nil {
		return err
	}
	excerpt := tables(out, "NETWORK PHASE", "NETWORK PEER", "POOL", "POLICY")
	if excerpt == "" {
		return fmt.Errorf("the status has none of its tables: %q", out)
	}
	d.screen.line("$ egret status")
	d.screen.quote(excerpt)
	d.screen.done("there are tables of next hops and probes as well, and -o json")
	return nil
}
