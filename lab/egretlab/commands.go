package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/egret-router/egret/lab/traffic"
)

func serve(ctx context.Context, e *env) error {
	name := e.flags.String("name", "server", "the name in its answers")
	var ports [3]uint
	for i, p := range []struct {
		name string
		port uint
	}{{"http", 80}, {"tcp", 7}, {"udp", 7}} {
		e.flags.UintVar(&ports[i], p.name, p.port, "port of the service, 0 for none")
	}
	if err := e.parse(0); err != nil {
		return err
	}
	for _, p := range ports {
		if p > 65535 {
			return fmt.Errorf("%w: port %d", errUsage, p)
		}
	}
	s, err := traffic.Listen(traffic.ServerConfig{Name: *name, HTTP: uint16(ports[0]), TCP: uint16(ports[1]), UDP: uint16(ports[2])})
	if err != nil {
		return err
	}
	e.ready()
	<-ctx.Done()
	return s.Close()
}

// clientFlags are those that all clients have.
func clientFlags(e *env, timeout time.Duration) (source *string, limit *time.Duration) {
	source = e.flags.String("source", "", "source address, address:port or :port")
	limit = e.flags.Duration("timeout", timeout, "give up after this time")
	return source, limit
}

func parseSource(text string) (netip.AddrPort, error) {
	source, err := traffic.ParseSource(text)
	if err != nil {
		return source, fmt.Errorf("%w: source: %w", errUsage, err)
	}
	return source, nil
}

func parseAddrPort(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return a, fmt.Errorf("%w: %w", errUsage, err)
	}
	return a, nil
}

func fetch(ctx context.Context, e *env) error {
	from, timeout := clientFlags(e, 5*time.Second)
	if err := e.parse(1); err != nil {
		return err
	}
	source, err := parseSource(*from)
	if err != nil {
		return err
	}
	ctx, cancel := limited(ctx, *timeout)
	defer cancel()
	r, err := traffic.Fetch(ctx, source, e.flags.Arg(0))
	if err != nil {
		return err
	}
	fmt.Fprint(e.stdout, r.Body)
	if r.Status >= 400 {
		return fmt.Errorf("status %d", r.Status)
	}
	return nil
}

func udp(ctx context.Context, e *env) error {
	from, timeout := clientFlags(e, 5*time.Second)
	if err := e.parse(1); err != nil {
		return err
	}
	source, err := parseSource(*from)
	if err != nil {
		return err
	}
	server, err := parseAddrPort(e.flags.Arg(0))
	if err != nil {
		return err
	}
	ctx, cancel := limited(ctx, *timeout)
	defer cancel()
	a, err := traffic.AskUDP(ctx, source, server)
	if err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, a)
	return nil
}

func ping(ctx context.Context, e *env) error {
	from, timeout := clientFlags(e, time.Minute)
	count := e.flags.Int("count", 3, "echo requests to send")
	interval := e.flags.Duration("interval", 200*time.Millisecond, "time between two")
	if err := e.parse(1); err != nil {
		return err
	}
	source, err := parseSource(*from)
	if err != nil {
		return err
	}
	dest, err := netip.ParseAddr(e.flags.Arg(0))
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	ctx, cancel := limited(ctx, *timeout)
	defer cancel()
	r, err := traffic.Ping(ctx, source.Addr(), dest, *count, *interval)
	if err != nil {
		return err
	}
	return e.verdict(r, r.Received > 0)
}

func stream(ctx context.Context, e *env) error {
	from, duration := clientFlags(e, 0)
	e.flags.DurationVar(duration, "duration", 0, "the same as -timeout; 0 is until a signal")
	proto := e.flags.String("proto", "icmp", "icmp or udp")
	interval := e.flags.Duration("interval", 10*time.Millisecond, "time between two packets")
	count := e.flags.Int("count", 0, "packets to send, 0 for no limit of its own")
	if err := e.parse(1); err != nil {
		return err
	}
	source, err := parseSource(*from)
	if err != nil {
		return err
	}
	dest, err := traffic.ParseSource(e.flags.Arg(0))
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	s, err := traffic.OpenStream(traffic.StreamOptions{
		Protocol: traffic.Protocol(*proto), Source: source, Dest: dest, Interval: *interval, Count: *count,
	})
	if err != nil {
		return err
	}
	e.ready()
	ctx, cancel := limited(ctx, *duration)
	defer cancel()
	r := s.Run(ctx)
	return e.verdict(r, r.Lost == 0)
}

// verdict prints a report; a bad one makes the exit code 1.
func (e *env) verdict(report any, good bool) error {
	if err := e.report(report); err != nil {
		return err
	}
	if !good {
		return errOutcome
	}
	return nil
}

func tcp(ctx context.Context, e *env) error {
	from, duration := clientFlags(e, 0)
	e.flags.DurationVar(duration, "duration", 0, "the same as -timeout; 0 is until a signal")
	interval := e.flags.Duration("interval", 100*time.Millisecond, "time between two lines")
	patience := e.flags.Duration("patience", 30*time.Second, "longest wait for a line's echo")
	if err := e.parse(1); err != nil {
		return err
	}
	source, err := parseSource(*from)
	if err != nil {
		return err
	}
	server, err := parseAddrPort(e.flags.Arg(0))
	if err != nil {
		return err
	}
	dialCtx, cancelDial := limited(ctx, *patience)
	defer cancelDial()
	x, err := traffic.DialExchange(dialCtx, source, server)
	if err != nil {
		return err
	}
	e.ready()
	ctx, cancel := limited(ctx, *duration)
	defer cancel()
	r := x.Run(ctx, *interval, *patience)
	return e.verdict(r, !r.Broken)
}

func sniff(ctx context.Context, e *env) error {
	allow := e.flags.String("allow", "", "source prefixes that may be seen, joined by commas")
	direction := e.flags.String("direction", "both", "in, out or both, as the interface sees it")
	duration := e.flags.Duration("duration", 0, "0 is until a signal")
	quiet := e.flags.Bool("quiet", false, "do not print leaks as they are seen")
	if err := e.parse(1); err != nil {
		return err
	}
	o := traffic.SnifferOptions{Device: e.flags.Arg(0), Direction: traffic.Direction(*direction)}
	for text := range strings.SplitSeq(*allow, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		o.Allowed = append(o.Allowed, p)
	}
	if !*quiet {
		o.OnLeak = func(at time.Time, p traffic.Packet) {
			fmt.Fprintf(e.stderr, "%s leak: %s\n", at.Format("15:04:05.000000"), p)
		}
	}
	s, err := traffic.OpenSniffer(o)
	if err != nil {
		return err
	}
	e.ready()
	ctx, cancel := limited(ctx, *duration)
	defer cancel()
	<-ctx.Done()
	r, err := s.Stop()
	if err != nil {
		return err
	}
	return e.verdict(r, r.Leaked == 0 && r.Dropped == 0)
}

func inject(ctx context.Context, e *env) error {
	from := e.flags.String("source", "", "source address:port")
	flags := e.flags.String("flags", "", "TCP flags, like RST or SYN+FIN")
	via := e.flags.String("via", "", "neighbour to send to, with -dev; default is the destination")
	payload := e.flags.String("payload", "", "what the packet carries")
	var in traffic.Injection
	e.flags.StringVar(&in.Protocol, "proto", "tcp", "tcp, udp, icmp or icmp-reply")
	e.flags.StringVar(&in.Device, "dev", "", "send on this interface, whatever the routes say")
	e.flags.IntVar(&in.Count, "count", 1, "how many packets")
	e.flags.DurationVar(&in.Interval, "interval", 10*time.Millisecond, "time between two")
	if err := e.parse(1); err != nil {
		return err
	}
	in.Payload = []byte(*payload)
	var err error
	if in.Source, err = parseSource(*from); err != nil {
		return err
	}
	if in.Dest, err = traffic.ParseSource(e.flags.Arg(0)); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if in.Flags, err = traffic.ParseFlags(*flags); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *via != "" {
		if in.Via, err = netip.ParseAddr(*via); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	return traffic.Inject(ctx, in)
}
