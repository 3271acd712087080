package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Deadlines are for an emulated processor that others use too; nothing waits
// longer than it must.
const (
	settle      = 3 * time.Minute
	cleanupTime = 2 * time.Minute
)

// The destination is the same in both networks.
var servers = []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00:10::5")}

// side is one of the two overlapping networks with the team it serves.
type side struct {
	network string
	client  string
	server  string
	pools   []netip.Prefix
	router  router
}

// story is the scenario with what its chapters share.
type story struct {
	lab       *lab
	say       *narrator
	red, blue side
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
		red: side{network: "red", client: "team-a", server: "red-server", router: frr{l, "red"},
			pools: pools("198.51.100.0/28", "2001:db8:100::/124")},
		blue: side{network: "blue", client: "team-b", server: "blue-server", router: bird{l, "blue"},
			pools: pools("203.0.113.0/28", "2001:db8:200::/124")},
	}
}

func (s *story) sides() []side { return []side{s.red, s.blue} }

// checkTopology deploys the topology, checks what the routers and the clients
// see, and destroys it, also after a failure or an interrupt.
func checkTopology(ctx context.Context, say *narrator, l *lab) (err error) {
	s := newStory(l, say)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if err != nil {
			s.showLogs(ctx)
		}
		err = errors.Join(err, s.destroy(ctx))
	}()
	for _, chapter := range []func(context.Context) error{s.deploy, s.routersLearn, s.clientsFetch, s.cutBeyondRed, s.nothingStray} {
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
	return s.allRun(ctx)
}

// allRun checks that no node's main program has ended.
func (s *story) allRun(ctx context.Context) error {
	running, err := s.lab.containers(ctx)
	if err != nil {
		return err
	}
	for _, line := range running {
		if _, state, _ := strings.Cut(line, " "); !strings.HasPrefix(state, "Up") {
			return fmt.Errorf("a node has ended: %s", line)
		}
	}
	const nodes = 8
	if len(running) != nodes {
		return fmt.Errorf("%d containers run, want %d: %q", len(running), nodes, running)
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

func (s *story) clientsFetch(ctx context.Context) error {
	s.say.step("both teams fetch from the same addresses")
	for _, side := range s.sides() {
		if err := s.fetches(ctx, side); err != nil {
			return err
		}
	}
	return nil
}

// fetches waits until the client of a side gets the answer of its own network's
// server in both families. An answer of another network is an error at once.
func (s *story) fetches(ctx context.Context, side side) error {
	for i, address := range servers {
		url := "http://" + netip.AddrPortFrom(address, 80).String() + "/"
		var network string
		var saw netip.Addr
		err := eventually(ctx, settle, side.client+" fetches "+url, func(ctx context.Context) error {
			out, err := s.lab.exec(ctx, side.client, "wget", "-q", "-T", "5", "-O", "-", url)
			if err != nil {
				return err
			}
			network, saw, err = parseAnswer(out)
			return err
		})
		if err != nil {
			return err
		}
		if network != side.network || !side.pools[i].Contains(saw) {
			return fmt.Errorf("%s fetched %s: network %s's server saw %s, want network %s and an address of %s",
				side.client, url, network, saw, side.network, side.pools[i])
		}
		s.say.ok("%s fetched %s: network %s's server saw %s", side.client, url, network, saw)
	}
	return nil
}

// cutBeyondRed loses everything between red's router and red's server, in a way
// that the router does not notice: only Egret's probe does.
func (s *story) cutBeyondRed(ctx context.Context) error {
	redBefore, err := s.red.router.view(ctx)
	if err != nil {
		return err
	}
	blueBefore, err := s.blue.router.view(ctx)
	if err != nil {
		return err
	}
	steady, err := startPings(ctx, s.lab, s.blue.client, servers...)
	if err != nil {
		return err
	}

	s.say.step("cutting the link beyond router red (containerlab tools netem): BGP stays up, the probe must tell")
	if err := s.lab.loss(ctx, "red", "eth1", 100); err != nil {
		return err
	}
	cut := time.Now()
	redCut, err := s.learned(ctx, s.red) // nothing
	if err != nil {
		return err
	}
	s.say.ok("red's pools were gone from its router %.1f s after the cut", time.Since(cut).Seconds())
	if err := s.failsClosed(ctx, s.red); err != nil {
		return err
	}
	if err := s.fetches(ctx, s.blue); err != nil {
		return err
	}
	if err := s.showStatus(ctx); err != nil {
		return err
	}

	s.say.step("healing the link")
	if err := s.lab.loss(ctx, "red", "eth1", 0); err != nil {
		return err
	}
	redAfter, err := s.learned(ctx, s.red, s.red.pools...)
	if err != nil {
		return err
	}
	if err := s.fetches(ctx, s.red); err != nil {
		return err
	}

	answers, err := steady.stop(ctx)
	if err != nil {
		return fmt.Errorf("network blue was disturbed: %w", err)
	}
	blueAfter, err := s.learned(ctx, s.blue, s.blue.pools...)
	if err != nil {
		return err
	}
	for _, pair := range [][2]view{{redBefore, redCut}, {redBefore, redAfter}, {blueBefore, blueAfter}} {
		if !maps.Equal(pair[0].Sessions, pair[1].Sessions) {
			return fmt.Errorf("a BGP session was lost: %v became %v", pair[0].Sessions, pair[1].Sessions)
		}
	}
	s.say.ok("network blue was not disturbed: %d pings of %s, none lost; no BGP session was lost", answers, s.blue.client)
	return nil
}

// failsClosed checks that a client whose network is down gets no answer from anywhere.
func (s *story) failsClosed(ctx context.Context, side side) error {
	for _, address := range servers {
		url := "http://" + netip.AddrPortFrom(address, 80).String() + "/"
		out, err := s.lab.exec(ctx, side.client, "wget", "-q", "-T", "2", "-O", "-", url)
		if err == nil {
			return fmt.Errorf("%s fetched %s while its network was down: %q", side.client, url, out)
		}
	}
	s.say.ok("%s gets no answer while its network is down", side.client)
	return nil
}

// nothingStray checks every address that the servers have ever answered.
func (s *story) nothingStray(ctx context.Context) error {
	s.say.step("what the servers saw in all")
	for _, side := range s.sides() {
		out, err := s.lab.exec(ctx, side.server, "cat", "/tmp/seen")
		if err != nil {
			return err
		}
		count := map[netip.Addr]int{}
		for text := range strings.FieldsSeq(out) {
			address, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("read what %s saw: %w", side.server, err)
			}
			if !slices.ContainsFunc(side.pools, func(p netip.Prefix) bool { return p.Contains(address) }) {
				return fmt.Errorf("%s saw %s, which is not in the pools %v", side.server, address, side.pools)
			}
			count[address]++
		}
		for _, address := range slices.SortedFunc(maps.Keys(count), netip.Addr.Compare) {
			s.say.ok("%s saw %s in %d requests", side.server, address, count[address])
		}
	}
	return s.allRun(ctx)
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
	for _, node := range []string{"gateway", "red", "blue"} {
		s.say.step("the last lines of %s", node)
		s.say.quote(s.lab.logs(ctx, node))
	}
	for _, command := range [][]string{{"egret", "status"}, {"ip", "-br", "address"}, {"ip", "rule"}, {"nft", "list", "ruleset"}} {
		out, err := s.lab.exec(ctx, "gateway", command...)
		s.say.step("gateway: %s (error: %v)", strings.Join(command, " "), err)
		s.say.quote(out)
	}
}

func (s *story) destroy(ctx context.Context) error {
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
