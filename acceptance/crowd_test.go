package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// flowKey tells a flow at the routers, where clients have other addresses: no
// two flows of a family and protocol have the same source port, and with a port
// of its own a flow keeps it.
type flowKey struct {
	v6   bool
	tcp  bool
	port uint16
}

// flow is one flow of a client to a server; its socket stays open.
type flow struct {
	key    flowKey
	client netip.Addr
	dest   netip.AddrPort
	udp    *net.UDPConn
	tcp    *traffic.Connection
	n      int // of exchanges, which makes each text another
	// server is who answered last, seen the address that it saw.
	server string
	seen   netip.Addr
}

func (f *flow) String() string {
	p := "udp"
	if f.key.tcp {
		p = "tcp"
	}
	return fmt.Sprintf("%s %s:%d to %s", p, f.client, f.key.port, f.dest)
}

// open opens a flow in a namespace. The TCP handshake has to succeed.
func open(ns *lab.NS, client netip.Addr, dest netip.Addr, tcp bool, port uint16) (*flow, error) {
	f := &flow{key: flowKey{client.Is6(), tcp, port}, client: client, dest: netip.AddrPortFrom(dest, lab.UDPPort)}
	source := netip.AddrPortFrom(client, port)
	err := ns.Do(func() (err error) {
		if !tcp {
			f.udp, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(source), net.UDPAddrFromAddrPort(f.dest))
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		f.tcp, err = traffic.DialExchange(ctx, source, f.dest)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f, err)
	}
	if tcp {
		f.server, f.seen = f.tcp.Server.Server, f.tcp.Server.Client.Addr()
	}
	return f, nil
}

func (f *flow) close() {
	if f.udp != nil {
		f.udp.Close()
	}
	if f.tcp != nil {
		f.tcp.Close()
	}
}

// exchange sends something and waits for the answer; datagrams are sent again
// every second.
func (f *flow) exchange(patience time.Duration) error {
	f.n++
	text := fmt.Sprintf("%d-%d", f.key.port, f.n)
	if f.key.tcp {
		if err := f.tcp.Exchange(text, patience); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		return nil
	}
	end := time.Now().Add(patience)
	for {
		answer, err := f.ask(text, min(time.Second, patience))
		if err == nil {
			f.server = answer.Server
			f.seen = answer.Client.Addr()
			return nil
		}
		if !errors.Is(err, errSilence) || time.Now().After(end) {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
}

var errSilence = errors.New("no answer")

// ask sends one datagram and waits for its answer.
func (f *flow) ask(text string, wait time.Duration) (traffic.Answer, error) {
	var none traffic.Answer
	if _, err := f.udp.Write([]byte(text)); err != nil {
		return none, err
	}
	if err := f.udp.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return none, err
	}
	b := make([]byte, 256)
	for {
		n, err := f.udp.Read(b)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return none, errSilence
		}
		if err != nil {
			return none, err
		}
		words := strings.Fields(string(b[:n]))
		if len(words) != 3 || words[0] != text {
			continue // the answer to an earlier one
		}
		client, err := netip.ParseAddrPort(words[2])
		return traffic.Answer{Server: words[1], Client: client}, err
	}
}

// each calls do for all flows, several at a time, and joins the errors of the
// first few.
func each(flows []*flow, do func(*flow) error) error {
	work := make(chan *flow)
	var mu sync.Mutex
	var errs []error
	failed := 0
	var run sync.WaitGroup
	for range 16 {
		run.Go(func() {
			for f := range work {
				if err := do(f); err != nil {
					mu.Lock()
					if failed++; failed <= 5 {
						errs = append(errs, err)
					}
					mu.Unlock()
				}
			}
		})
	}
	for _, f := range flows {
		work <- f
	}
	close(work)
	run.Wait()
	if failed > 0 {
		errs = append(errs, fmt.Errorf("%d of %d flows", failed, len(flows)))
	}
	return errors.Join(errs...)
}

// talk exchanges one message on every flow.
func talk(flows []*flow) error {
	return each(flows, func(f *flow) error { return f.exchange(patience) })
}

// silent expects that no flow is answered.
func silent(flows []*flow) error {
	return each(flows, func(f *flow) error {
		if err := f.exchange(time.Second); err == nil {
			return fmt.Errorf("%s was answered by %s", f, f.server)
		}
		return nil
	})
}

// carriers notes which routers carried which flows.
type carriers struct {
	sniffers []*traffic.Sniffer
	mu       sync.Mutex
	by       map[flowKey]map[int]int // packets by router
}

// watchRouters begins to look at all routers of the fan.
func watchRouters(f *lab.Fan) (*carriers, error) {
	c := &carriers{by: map[flowKey]map[int]int{}}
	for i := range f.Routers {
		s, err := f.SniffRouter(i, traffic.SnifferOptions{OnLeak: func(_ time.Time, p traffic.Packet) { c.saw(i, p) }})
		if err != nil {
			return nil, err
		}
		f.Defer(func() error { _, err := s.Stop(); return err })
		c.sniffers = append(c.sniffers, s)
	}
	return c, nil
}

func (c *carriers) saw(router int, p traffic.Packet) {
	if p.DestPort != lab.UDPPort || p.Protocol != 6 && p.Protocol != 17 {
		return
	}
	key := flowKey{p.Source.Is6(), p.Protocol == 6, p.SourcePort}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[key] == nil {
		c.by[key] = map[int]int{}
	}
	c.by[key][router]++
}

// forget begins anew.
func (c *carriers) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.by)
}

// packets counts those of a flow since forget.
func (c *carriers) packets(f *flow) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.by[f.key] {
		n += k
	}
	return n
}

// of tells the router of each flow since forget; it waits until all have been
// seen. A flow that two carried is an error.
func (c *carriers) of(ctx context.Context, flows []*flow) (map[flowKey]int, error) {
	var out map[flowKey]int
	err := lab.Poll(ctx, patience, "all flows at the routers", func() error {
		out = make(map[flowKey]int, len(flows))
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, f := range flows {
			routers := c.by[f.key]
			if len(routers) == 0 {
				return fmt.Errorf("nothing of %s", f)
			}
			if len(routers) > 1 {
				return lab.Final(fmt.Errorf("%s was carried by several: %v", f, routers))
			}
			for r := range routers {
				out[f.key] = r
			}
		}
		return nil
	})
	return out, err
}

// dropped is an error if a sniffer missed something.
func (c *carriers) dropped() error {
	for i, s := range c.sniffers {
		if r := s.Report(); r.Dropped > 0 {
			return fmt.Errorf("the sniffer at router %d missed %d packets", i+1, r.Dropped)
		}
	}
	return nil
}
