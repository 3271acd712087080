package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/egret-router/egret/lab/traffic"
)

// Deadlines are for an emulated processor that others use too; nothing waits
// longer than it must.
const (
	settle       = 5 * time.Minute
	fetchTimeout = 10 * time.Second
	// deadTimeout is how long a client waits for the answer that must not come.
	deadTimeout = 3 * time.Second
	cleanupTime = 3 * time.Minute
)

// sourcePort is every client's, so that the flows of both networks differ in
// nothing but the client's address.
const sourcePort = 44444

// The destination and the gateway's own addresses are the same in both networks.
var (
	servers  = []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00:10::5")}
	transfer = []netip.Prefix{netip.MustParsePrefix("172.16.0.1/32"), netip.MustParsePrefix("fd00:16::1/128")}
)

// side is one of the two overlapping networks with the team it serves.
type side struct {
	network string
	client  string
	pools   []netip.Prefix // in the order of servers
	router  router
}

// story is the scenario with what its chapters share.
type story struct {
	lab       *lab
	say       *narrator
	red, blue side
	sniffers  []*watcher // in the order of sides
}

func newStory(l *lab, say *narrator) *story {
	pools := func(texts ...string) (list []netip.Prefix) {
		for _, t := range texts {
			list = append(list, netip.MustParsePrefix(t))
		}
		return list
	}
	return &story{
		lab: l, say: say,
		red: side{network: "red", client: "team-a", router: frr{l, "red"},
			pools: pools("198.51.100.0/28", "2001:db8:100::/124")},
		blue: side{network: "blue", client: "team-b", router: bird{l, "blue"},
			pools: pools("203.0.113.0/28", "2001:db8:200::/124")},
	}
}

func (s *story) sides() []side { return []side{s.red, s.blue} }

// checkTopology deploys the topology, checks what the routers and the clients
// see, and destroys it, also after a failure or an interrupt.
func checkTopology(ctx context.Context, say *narrator, l *lab) (err error) {
	s := newStory(l, say)
	defer func() {
		ctx := context.WithoutCancel(ctx)
		if err != nil {
			s.showLogs(ctx)
		}
		err = errors.Join(err, s.destroy(ctx))
	}()
	chapters := []func(context.Context) error{s.deploy, s.sniff, s.routersLearn, s.clientsFetch, s.cutBeyondRed, s.nothingStray}
	for _, chapter := range chapters {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) deploy(ctx context.Context) error {
	s.say.step("containerlab deploy")
	if err := s.lab.deploy(ctx); err != nil {
		return err
	}
	running, err := s.lab.containers(ctx)
	if err != nil {
		return err
	}
	s.say.quote(strings.Join(running, "\n"))
	return allRun(running)
}

// allRun checks that no node's main program has ended.
func allRun(containers []string) error {
	for _, line := range containers {
		if _, state, _ := strings.Cut(line, " "); !strings.HasPrefix(state, "Up") {
			return fmt.Errorf("a node has ended: %s", line)
		}
	}
	const nodes = 8
	if len(containers) != nodes {
		return fmt.Errorf("%d containers run, want %d: %q", len(containers), nodes, containers)
	}
	return nil
}

// sniff begins to watch what arrives at each router from the gateway.
func (s *story) sniff(ctx context.Context) error {
	for _, side := range s.sides() {
		var allowed []string
		for _, p := range append(transfer[:2:2], side.pools...) {
			allowed = append(allowed, p.String())
		}
		w, err := s.lab.watch(ctx, side.network, "sniff", "sniff", "-quiet", "-direction", "in", "-allow", strings.Join(allowed, ","), "eth0")
		if err != nil {
			return err
		}
		s.sniffers = append(s.sniffers, w)
	}
	return nil
}

// routersLearn waits until each router has both sessions and exactly the pools
// of its own network.
func (s *story) routersLearn(ctx context.Context) error {
	s.say.step("BGP: each router gets the pools of its network, and no others")
	for _, side := range s.sides() {
		if _, err := s.learned(ctx, side, side.pools...); err != nil {
			return err
		}
	}
	return s.showStatus(ctx)
}

// learned waits until a side's router has exactly these prefixes of the gateway.
func (s *story) learned(ctx context.Context, side side, want ...netip.Prefix) (view, error) {
	var v view
	err := eventually(ctx, settle, "router "+side.network, func(ctx context.Context) (err error) {
		if v, err = side.router.view(ctx); err != nil {
			return err
		}
		return v.wants(want...)
	})
	if err == nil {
		s.say.ok("router %s: 2 sessions, learned %v", side.network, v.Learned)
	}
	return v, err
}

// clientsFetch lets both teams fetch at the same time.
func (s *story) clientsFetch(ctx context.Context) error {
	s.say.step("both teams fetch from the same addresses, with the same source port, at the same time")
	errs := make([]error, len(s.sides()))
	var both sync.WaitGroup
	for i, side := range s.sides() {
		both.Go(func() { errs[i] = s.fetches(ctx, side) })
	}
	both.Wait()
	return errors.Join(errs...)
}

// fetches waits until the client of a side gets the answer of its own network's
// server in both families. An answer of another network is an error at once.
func (s *story) fetches(ctx context.Context, side side) error {
	for i, server := range servers {
		var network string
		var saw netip.AddrPort
		err := eventually(ctx, settle, side.client+" fetches "+url(server), func(ctx context.Context) (err error) {
			network, saw, err = s.lab.fetch(ctx, side.client, fetchTimeout, sourcePort, server)
			return err
		})
		if err != nil {
			return err
		}
		if network != side.network || !side.pools[i].Contains(saw.Addr()) {
			return fmt.Errorf("%s fetched %s: network %s's server saw %s, want network %s and an address of %s",
				side.client, url(server), network, saw, side.network, side.pools[i])
		}
		s.say.ok("%s fetched %s: the server of network %s saw %s", side.client, url(server), network, saw)
	}
	return nil
}

// cutBeyondRed loses everything between red's router and red's server, in a way
// that the router does not notice, while team-b keeps a stream of pings; then
// the link heals.
func (s *story) cutBeyondRed(ctx context.Context) error {
	before, err := s.views(ctx)
	if err != nil {
		return err
	}
	var streams []*watcher
	for i, server := range servers {
		w, err := s.lab.watch(ctx, s.blue.client, fmt.Sprint("stream", i), "stream", "-interval", "200ms", server.String())
		if err != nil {
			return err
		}
		streams = append(streams, w)
	}
	s.say.step("cutting the link beyond router red (containerlab tools netem): BGP stays up, the probe must tell")
	if err := s.cut(ctx); err != nil {
		return err
	}
	s.say.step("healing the link")
	if err := s.lab.loss(ctx, "red", "eth1", 0); err != nil {
		return err
	}
	if _, err := s.learned(ctx, s.red, s.red.pools...); err != nil {
		return err
	}
	if err := s.fetches(ctx, s.red); err != nil {
		return err
	}
	for i, w := range streams {
		var report traffic.StreamReport
		if err := w.stop(ctx, &report); err != nil {
			return err
		}
		if report.Lost > 0 || report.Received == 0 {
			return fmt.Errorf("network blue was disturbed: ping of %s from %s: %+v", servers[i], s.blue.client, report)
		}
		s.say.ok("network blue was not disturbed: %s pinged %s %d times, nothing was lost", s.blue.client, servers[i], report.Received)
	}
	return s.sessionsSince(ctx, before)
}

// cut is what must happen while the link is cut.
func (s *story) cut(ctx context.Context) error {
	start := time.Now()
	if err := s.lab.loss(ctx, "red", "eth1", 100); err != nil {
		return err
	}
	if _, err := s.learned(ctx, s.red); err != nil { // nothing
		return err
	}
	s.say.ok("red's pools were seen gone %.1f s after the command", time.Since(start).Seconds())
	for _, server := range servers {
		if network, saw, err := s.lab.fetch(ctx, s.red.client, deadTimeout, sourcePort, server); err == nil {
			return fmt.Errorf("%s fetched %s while its network was down: network %s's server saw %s", s.red.client, url(server), network, saw)
		}
	}
	s.say.ok("%s gets no answer while its network is down", s.red.client)
	if err := s.fetches(ctx, s.blue); err != nil {
		return err
	}
	if _, err := s.learned(ctx, s.blue, s.blue.pools...); err != nil {
		return err
	}
	return s.showStatus(ctx)
}

// views asks both routers, in the order of sides.
func (s *story) views(ctx context.Context) ([]view, error) {
	var views []view
	for _, side := range s.sides() {
		v, err := side.router.view(ctx)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	return views, nil
}

// sessionsSince checks that both routers still have the sessions they had.
func (s *story) sessionsSince(ctx context.Context, before []view) error {
	now, err := s.views(ctx)
	if err != nil {
		return err
	}
	for i, side := range s.sides() {
		if err := now[i].lostSince(before[i]); err != nil {
			return fmt.Errorf("router %s: %w", side.network, err)
		}
	}
	s.say.ok("no BGP session was lost")
	return nil
}

// nothingStray checks every packet that has left the gateway by an uplink since
// the beginning.
func (s *story) nothingStray(ctx context.Context) error {
	s.say.step("what came out of the gateway's uplinks in all")
	for i, side := range s.sides() {
		var report traffic.SniffReport
		if err := s.sniffers[i].stop(ctx, &report); err != nil {
			return err
		}
		if err := report.Err(); err != nil {
			return fmt.Errorf("uplink of network %s: %w", side.network, err)
		}
		for _, pool := range side.pools {
			if !sawPool(report, pool) {
				return fmt.Errorf("uplink of network %s: no packet from %s, so it proves nothing: %v", side.network, pool, report.Sources)
			}
		}
		s.say.ok("network %s: %d packets, all from its pools and the gateway's own addresses", side.network, report.Packets)
	}
	containers, err := s.lab.containers(ctx)
	if err != nil {
		return err
	}
	return allRun(containers)
}

func sawPool(report traffic.SniffReport, pool netip.Prefix) bool {
	for source := range report.Sources {
		if pool.Contains(source) {
			return true
		}
	}
	return false
}

func (s *story) showStatus(ctx context.Context) error {
	out, err := s.lab.exec(ctx, "gateway", "egret", "status")
	if err == nil {
		s.say.quote(out)
	}
	return err
}

// showLogs is for after a failure: what the nodes with something to say said.
func (s *story) showLogs(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	for _, node := range []string{"gateway", "red", "blue"} {
		s.say.step("the last lines of %s", node)
		s.say.quote(s.lab.logs(ctx, node))
	}
	for _, command := range []string{"egret status", "ip -br address", "ip rule", "nft --terse list ruleset"} {
		out, err := s.lab.exec(ctx, "gateway", strings.Fields(command)...)
		s.say.step("gateway: %s (error: %v)", command, err)
		s.say.quote(out)
	}
}

func (s *story) destroy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	s.say.step("containerlab destroy")
	if err := s.lab.destroy(ctx); err != nil {
		return err
	}
	left, err := s.lab.containers(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("containers are left after destroy: %q", left)
	}
	s.say.ok("nothing is left")
	return nil
}
