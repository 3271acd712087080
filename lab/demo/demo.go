package main

import (
	"context"
	_ "embed" // the configuration and the picture
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

//go:embed egret.yaml
var configuration string

//go:embed topology.txt
var topology string

// patience bounds every wait of a step. It is generous, because machines are
// shared and emulated; a demo that works never waits so long.
const patience = 3 * time.Minute

// holdTime is that of the routers: a machine that stands still for a while does
// not lose its sessions.
const holdTime = 90 * time.Second

// A demo is a running lab with a real Egret in it.
type demo struct {
	*lab.Overlap
	screen *screen
	binary string
	daemon *lab.Proc
	pools  map[string][]netip.Prefix // by network, from the configuration

	// blueFlow runs from the cut to the repair.
	blueFlow *flow
}

// A team is who the story is about: its clients, and the network its policy leads to.
type team struct {
	name, network    string
	client4, client6 netip.Addr
}

func teams() []team {
	return []team{
		{"team a", "red", netip.MustParseAddr(lab.ClientA4), netip.MustParseAddr(lab.ClientA6)},
		{"team b", "blue", netip.MustParseAddr(lab.ClientB4), netip.MustParseAddr(lab.ClientB6)},
	}
}

func (t team) clients() []netip.Addr { return []netip.Addr{t.client4, t.client6} }

// everyClient is all clients of all teams.
func everyClient() []netip.Addr {
	var all []netip.Addr
	for _, t := range teams() {
		all = append(all, t.clients()...)
	}
	return all
}

// server is the destination of a client's family; it exists in both networks.
func server(client netip.Addr) netip.Addr {
	if client.Is4() {
		return netip.MustParseAddr(lab.Server4)
	}
	return netip.MustParseAddr(lab.Server6)
}

// build brings the topology up, without Egret, and leaves its configuration there.
func (d *demo) build(l *lab.Lab) error {
	spec, err := config.Read("egret.yaml", []byte(configuration))
	if err != nil {
		return err
	}
	d.pools = map[string][]netip.Prefix{}
	for _, p := range spec.Pools {
		d.pools[p.Network] = append(d.pools[p.Network], p.Prefixes...)
	}
	if d.Overlap, err = lab.NewOverlap(l, lab.OverlapOptions{HoldTime: holdTime}); err != nil {
		return err
	}
	return d.WriteConfig(configuration)
}

// egret runs a command of the binary in the gateway.
func (d *demo) egret(args ...string) (string, error) {
	return d.Gateway.Run(append([]string{d.binary}, args...)...)
}

// launch starts the daemon; it does not wait.
func (d *demo) launch() (err error) {
	d.daemon, err = d.StartEgret(d.binary, configuration)
	return err
}

// status asks the daemon as `egret status` does, over its socket: to start a
// program for every look costs an emulated machine more than the daemon needs.
func (d *demo) status(ctx context.Context) (*egress.Status, error) {
	return control.NewClient(d.Gateway.Path(control.SocketPath(config.DefaultRunDir))).Status(ctx)
}

// waitStatus waits until the daemon's status satisfies a check.
func (d *demo) waitStatus(ctx context.Context, what string, check func(*egress.Status) error) (*egress.Status, error) {
	var s *egress.Status
	err := lab.Poll(ctx, patience, what, func() (err error) {
		if !d.daemon.Running() {
			return lab.Final(errors.New("the daemon has ended"))
		}
		if s, err = d.status(ctx); err != nil {
			return err
		}
		return check(s)
	})
	return s, err
}

// waitPhases waits for the phases of both networks.
func (d *demo) waitPhases(ctx context.Context, red, blue egress.Phase) (*egress.Status, error) {
	want := map[string]egress.Phase{"red": red, "blue": blue}
	return d.waitStatus(ctx, fmt.Sprintf("red %s and blue %s", red, blue), func(s *egress.Status) error {
		if len(s.Networks) != len(want) {
			return fmt.Errorf("the status has %d networks", len(s.Networks))
		}
		for _, n := range s.Networks {
			if n.Phase != want[n.Name] {
				return fmt.Errorf("%s is %s: %s; last error of a round: %q", n.Name, n.Phase, n.Reason, s.Round.LastError)
			}
		}
		return nil
	})
}

// waitServing waits until both routers have their sessions and their pools.
func (d *demo) waitServing(ctx context.Context) error {
	for _, u := range d.Upstreams() {
		if err := u.Router.WaitEstablished(ctx, patience); err != nil {
			return err
		}
		for _, p := range d.pools[u.Name] {
			if err := u.Router.WaitRoute(ctx, patience, p, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch gets http://SERVER/ as a client with this source port, and returns
// what the server says.
func (d *demo) fetch(ctx context.Context, client netip.Addr, port uint16, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var r traffic.Response
	err := d.Client.Do(func() (err error) {
		r, err = traffic.Fetch(ctx, netip.AddrPortFrom(client, port), url(server(client)))
		return err
	})
	return strings.TrimSpace(r.Body), err
}

func url(server netip.Addr) string {
	if server.Is6() {
		return "http://[" + server.String() + "]/"
	}
	return "http://" + server.String() + "/"
}

// answered waits until a client is answered by its network's server, as an
// address of that network's pool.
func (d *demo) answered(ctx context.Context, t team, client netip.Addr, port uint16) (body string, err error) {
	what := fmt.Sprintf("%s's client %s answered by %s's server", t.name, client, t.network)
	err = lab.Poll(ctx, patience, what, func() error {
		if body, err = d.fetch(ctx, client, port, 10*time.Second); err != nil {
			return err
		}
		by, seen, err := parseAnswer(body)
		if err != nil {
			return err
		}
		// No wait makes a wrong network's answer right.
		if by != t.network || !contains(d.pools[t.network], seen.Addr()) {
			return lab.Final(fmt.Errorf("the answer is %q, and %s's pool is %s", body, t.network, join(d.pools[t.network])))
		}
		return nil
	})
	return body, err
}

// interval is the time between two packets of a stream.
const interval = 100 * time.Millisecond

// A flow is a set of steady streams, one from each client.
type flow struct {
	cancel  context.CancelFunc
	run     sync.WaitGroup
	mu      sync.Mutex
	reports map[netip.Addr]traffic.StreamReport
}

// stream starts a steady stream from each of the clients to its server.
func (d *demo) stream(ctx context.Context, protocol traffic.Protocol, clients ...netip.Addr) (*flow, error) {
	f := &flow{reports: map[netip.Addr]traffic.StreamReport{}}
	ctx, f.cancel = context.WithCancel(ctx)
	for _, c := range clients {
		s, err := d.Stream(traffic.StreamOptions{Protocol: protocol, Source: netip.AddrPortFrom(c, 0),
			Dest: netip.AddrPortFrom(server(c), lab.UDPPort), Interval: interval, Linger: 20 * time.Second})
		if err != nil {
			f.stop()
			return nil, err
		}
		f.run.Go(func() {
			r := s.Run(ctx)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.reports[c] = r
		})
	}
	return f, nil
}

func (f *flow) stop() {
	f.cancel()
	f.run.Wait()
}

// lossless ends the streams. It is an error if a packet was lost, or none was sent.
func (f *flow) lossless() (sent int, err error) {
	f.stop()
	var errs []error
	for c, r := range f.reports {
		sent += r.Sent
		if r.Lost > 0 || r.Received == 0 {
			errs = append(errs, fmt.Errorf("the stream of %s lost %d of %d packets: %+v %s", c, r.Lost, r.Sent, r.Gaps, r.LastError))
		}
	}
	return sent, errors.Join(errs...)
}
