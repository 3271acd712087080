package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

func (d *demo) showCut(ctx context.Context) (err error) {
	// Blue's stream goes on until the link is back, in the next step.
	if d.blueFlow, err = d.stream(ctx, traffic.UDP, teams()[1].clients()...); err != nil {
		return err
	}
	cut := time.Now()
	if err := d.CutBeyond("red"); err != nil {
		return err
	}
	var rows [][]string
	for _, p := range d.pools["red"] {
		if err := d.Red.Router.WaitRoute(ctx, patience, p, false); err != nil {
			return err
		}
		rows = append(rows, []string{p.String(), fmt.Sprintf("gone from red's router %.1f s after the cut", time.Since(cut).Seconds())})
	}
	if _, err := d.waitPhases(ctx, egress.PhaseDown, egress.PhaseUp); err != nil {
		return err
	}
	// The first probe was enough; both are to be shown.
	s, err := d.waitStatus(ctx, "the verdict of all of red's probes", func(s *egress.Status) error {
		for _, row := range verdicts(s, "red") {
			if !strings.HasSuffix(row[1], " is down") {
				return errors.New(row[1])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.screen.table(append(verdicts(s, "red"), rows...)...)
	if err := d.stillEstablished(); err != nil {
		return err
	}
	d.screen.line("BGP of red is still Established: only the probes could tell")
	if err := d.failsClosed(ctx); err != nil {
		return err
	}
	d.screen.line("team a gets no answer, and none of its packets left by any uplink")
	t := teams()[1]
	for _, c := range t.clients() {
		if _, err := d.answered(ctx, t, c, 0); err != nil {
			return err
		}
	}
	d.screen.done("red is down and fails closed, blue answers as before")
	return nil
}

// verdicts are rows of a network's probes.
func verdicts(s *egress.Status, network string) (rows [][]string) {
	for _, n := range s.Networks {
		if n.Name != network {
			continue
		}
		for _, p := range n.Probes {
			for _, t := range p.Targets {
				rows = append(rows, []string{"probe " + p.Name, t.Target + " is " + t.Verdict, t.LastError})
			}
		}
	}
	return rows
}

// stillEstablished looks once: what matters is that no session ended.
func (d *demo) stillEstablished() error {
	for _, peer := range []string{lab.TransferGateway4, lab.TransferGateway6} {
		state, err := d.Red.Router.BGPState(netip.MustParseAddr(peer))
		if err != nil {
			return err
		}
		if state != "Established" {
			return fmt.Errorf("red's session with %s should have stayed, and is %q", peer, state)
		}
	}
	return nil
}

// failsClosed: no client of team a is answered, and no packet arrives at a
// router that is not from blue's pool.
func (d *demo) failsClosed(ctx context.Context) (err error) {
	for _, u := range d.Upstreams() {
		var allowed []netip.Prefix
		if u == d.Blue {
			allowed = d.pools["blue"]
		}
		sniffer, openErr := d.Sniff(u.Name, allowed...)
		if openErr != nil {
			return openErr
		}
		defer func() {
			report, stopErr := sniffer.Stop()
			if stopErr == nil {
				stopErr = report.Err()
			}
			if stopErr != nil {
				err = errors.Join(err, fmt.Errorf("seen by %s's router: %w", u.Name, stopErr))
			}
		}()
	}
	for _, c := range teams()[0].clients() {
		if body, err := d.fetch(ctx, c, 0, 3*time.Second); err == nil {
			return fmt.Errorf("%s was answered while red is down: %s", c, body)
		}
	}
	return ctx.Err()
}

func (d *demo) showHeal(ctx context.Context) error {
	healed := time.Now()
	if err := d.Heal("red"); err != nil {
		return err
	}
	if err := d.waitServing(ctx); err != nil {
		return err
	}
	d.screen.line("red's pools are back in its router's table after %.1f s", time.Since(healed).Seconds())
	if _, err := d.waitPhases(ctx, egress.PhaseUp, egress.PhaseUp); err != nil {
		return err
	}
	t := teams()[0]
	for _, c := range t.clients() {
		body, err := d.answered(ctx, t, c, 0)
		if err != nil {
			return err
		}
		d.screen.line("%s is answered again: %s", c, body)
	}
	sent, err := d.blueFlow.lossless()
	if err != nil {
		return err
	}
	d.screen.done("blue lost 0 of %d packets over the cut and the repair", sent)
	return nil
}

func (d *demo) showRestart(ctx context.Context) error {
	pings, err := d.stream(ctx, traffic.ICMP, everyClient()...)
	if err != nil {
		return err
	}
	defer pings.stop()
	pid := d.daemon.PID()
	d.daemon.Kill9()
	killed := time.Now()
	if err := d.launch(); err != nil {
		return err
	}
	s, err := d.waitStatus(ctx, "the new daemon in sync with its peers", inSync)
	if err != nil {
		return err
	}
	if err := d.waitServing(ctx); err != nil {
		return err
	}
	back := time.Since(killed)
	if s.Round.Operations > 0 {
		return fmt.Errorf("the new daemon made %d changes to a kernel that was right", s.Round.Operations)
	}
	if err := d.planEmpty(ctx); err != nil {
		return err
	}
	d.screen.line("daemon %d was killed; daemon %d has its sessions and routes back after %.1f s,", pid, d.daemon.PID(), back.Seconds())
	d.screen.line("and changed nothing in the kernel")
	d.screen.line("$ egret plan --config lab/demo/egret.yaml")
	d.screen.quote("nothing to change")
	sent, err := pings.lossless()
	if err != nil {
		return err
	}
	d.screen.done("0 of %d echo requests of both teams were lost", sent)
	return nil
}

// inSync wants every network up, with the routes that its peers have sent since the start.
func inSync(s *egress.Status) error {
	if len(s.Networks) == 0 {
		return errors.New("no network yet")
	}
	for _, n := range s.Networks {
		if n.Phase != egress.PhaseUp || n.Stale || n.LearnedRoutes != 2 {
			return fmt.Errorf("%s is %s with %d learned routes, stale %t", n.Name, n.Phase, n.LearnedRoutes, n.Stale)
		}
	}
	return nil
}

// planEmpty waits until `egret plan` has nothing to change.
func (d *demo) planEmpty(ctx context.Context) error {
	return lab.Poll(ctx, patience, "an empty plan", func() error {
		out, err := d.egret("plan", "--config", d.ConfigPath())
		if err == nil && out != "nothing to change\n" {
			err = fmt.Errorf("the plan is:\n%.2000s", out)
		}
		return err
	})
}

// The mistake of the broken file, and where it is.
const (
	mistakeOf    = "{destination: 10.0.0.0/8, network: blue}"
	mistake      = "{destination: 10.0.0.0/8, network: bleu}"
	mistakeField = "policies[1].rules[0].network"
)

func (d *demo) showRefusal(ctx context.Context) error {
	flow, err := d.stream(ctx, traffic.UDP, everyClient()...)
	if err != nil {
		return err
	}
	defer flow.stop()
	if err := d.WriteConfig(strings.Replace(configuration, mistakeOf, mistake, 1)); err != nil {
		return err
	}
	s, err := d.waitStatus(ctx, "the refusal in the status", func(s *egress.Status) error {
		if !strings.Contains(s.Config.Error, mistakeField) {
			return fmt.Errorf("the status says %q", s.Config.Error)
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.screen.line("in team-b's policy: %s", mistake)
	d.screen.quote(strings.ReplaceAll(s.Config.Error, d.ConfigPath(), "egret.yaml"))
	for _, t := range teams() {
		for _, c := range t.clients() {
			if _, err := d.answered(ctx, t, c, 0); err != nil {
				return err
			}
		}
	}
	if err := d.WriteConfig(configuration); err != nil {
		return err
	}
	if _, err = d.waitStatus(ctx, "the corrected file to be accepted", func(s *egress.Status) error {
		if s.Config.Error != "" {
			return errors.New(s.Config.Error)
		}
		return nil
	}); err != nil {
		return err
	}
	sent, err := flow.lossless()
	if err != nil {
		return err
	}
	d.screen.done("the field is named, the old configuration stays: 0 of %d packets lost", sent)
	return nil
}

// A remainder is a command that prints something if anything of Egret's is left.
type remainder struct {
	words []string
	only  string // in lines with this text; the list of rules has no filter of its own (iproute2 6.1)
}

func remainders() []remainder {
	list := []remainder{
		{words: []string{"ip", "link", "show", "type", "vrf"}},
		{words: []string{"ip", "nexthop", "show"}},
		{words: []string{"nft", "list", "ruleset"}},
	}
	for _, family := range []string{"-4", "-6"} {
		for _, proto := range []string{"108", "109"} {
			list = append(list, remainder{words: []string{"ip", family, "route", "show", "table", "all", "proto", proto}})
		}
		list = append(list, remainder{words: []string{"ip", family, "rule", "show"}, only: "proto 108"})
	}
	return list
}

// left runs the command and is an error if there is something.
func (r remainder) left(ns *lab.NS) error {
	out, err := ns.Run(r.words...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, r.only) {
			return fmt.Errorf("%q still shows:\n%s", strings.Join(r.words, " "), line)
		}
	}
	return nil
}

func (d *demo) showTeardown(context.Context) error {
	if err := d.daemon.Stop(); err != nil {
		return err
	}
	out, err := d.egret("teardown", "--config", d.ConfigPath())
	if err != nil {
		return err
	}
	d.screen.line("$ egret teardown")
	d.screen.quote(out)
	var errs []error
	for _, r := range remainders() {
		errs = append(errs, r.left(d.Gateway))
	}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		value, err := d.Gateway.ReadSysctl(key)
		if err == nil && value != "0" {
			err = fmt.Errorf("%s is %s", key, value)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.screen.done("no VRF, route, rule, next hop or nftables of Egret's; nothing forwards any more")
	return nil
}
