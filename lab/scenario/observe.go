package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

func readFile(name string) (string, error) {
	text, err := os.ReadFile(name)
	return string(text), err
}

func (s *script) trafficCommands() map[string]command {
	return map[string]command{
		"fetch": s.fetch, "ask": s.ask, "udp": s.udp, "ping": s.ping,
		"stream-start": s.streamStart, "stream-stop": s.streamStop, "connect": s.connect, "connected": s.connected,
		"sniff": s.sniff, "sniffed": s.sniffed, "inject": s.inject,
	}
}

// running is a stream or a connection that runs until stop is called, which
// returns its report.
type running struct {
	stop func() any
}

// start runs something until its stop, or the end of the lab.
func (s *script) start(name string, run func(context.Context) any) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.tb.Context()))
	done := make(chan any, 1)
	go func() { done <- run(ctx) }()
	s.running[name] = &running{stop: func() any {
		cancel()
		return <-done
	}}
	s.network().Defer(func() error {
		cancel()
		return nil
	})
}

// client reads a source and runs do in the client's namespace.
func (s *script) client(source string, do func(*lab.Overlap, netip.AddrPort) error) error {
	o, err := s.topology()
	if err != nil {
		return err
	}
	from, err := traffic.ParseSource(source)
	if err != nil {
		return usageError(err.Error())
	}
	return o.Client.Do(func() error { return do(o, from) })
}

func (s *script) fetch(ctx context.Context, args []string) (string, error) {
	if err := want(args, 2, 2, "SOURCE URL"); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	body := ""
	err := s.client(args[0], func(_ *lab.Overlap, source netip.AddrPort) error {
		r, err := traffic.Fetch(ctx, source, args[1])
		body = r.Body
		if err == nil && r.Status >= 400 {
			err = fmt.Errorf("status %d", r.Status)
		}
		return err
	})
	return body, err
}

func (s *script) ask(ctx context.Context, args []string) (string, error) {
	return s.askBy(ctx, args, lab.HTTPPort, traffic.FetchAnswer)
}

func (s *script) udp(ctx context.Context, args []string) (string, error) {
	return s.askBy(ctx, args, lab.UDPPort, traffic.AskUDP)
}

func (s *script) askBy(ctx context.Context, args []string, port uint16, ask func(context.Context, netip.AddrPort, netip.AddrPort) (traffic.Answer, error)) (string, error) {
	if err := want(args, 2, 2, "SOURCE SERVER"); err != nil {
		return "", err
	}
	server, err := netip.ParseAddr(args[1])
	if err != nil {
		return "", usageError(err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var a traffic.Answer
	err = s.client(args[0], func(_ *lab.Overlap, source netip.AddrPort) error {
		a, err = ask(ctx, source, netip.AddrPortFrom(server, port))
		return err
	})
	if err != nil {
		return "", err
	}
	return a.String() + "\n", nil
}

func (s *script) ping(ctx context.Context, args []string) (string, error) {
	if err := want(args, 2, 2, "SOURCE DEST"); err != nil {
		return "", err
	}
	dest, err := netip.ParseAddr(args[1])
	if err != nil {
		return "", usageError(err.Error())
	}
	var r traffic.StreamReport
	err = s.client(args[0], func(_ *lab.Overlap, source netip.AddrPort) error {
		r, err = traffic.Ping(ctx, source.Addr(), dest, 3, 100*time.Millisecond)
		if err == nil && r.Received == 0 {
			err = errors.New("no reply")
		}
		return err
	})
	return asJSON(r), err
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text) + "\n"
}

func (s *script) streamStart(_ context.Context, args []string) (string, error) {
	const usage = "NAME icmp|udp SOURCE DEST [INTERVAL]"
	if err := want(args, 4, 5, usage); err != nil {
		return "", err
	}
	dest, err := netip.ParseAddr(args[3])
	if err != nil {
		return "", usageError(err.Error())
	}
	o := traffic.StreamOptions{Protocol: traffic.Protocol(args[1]), Dest: netip.AddrPortFrom(dest, lab.UDPPort)}
	if len(args) == 5 {
		if o.Interval, err = time.ParseDuration(args[4]); err != nil {
			return "", usageError(usage)
		}
	}
	var stream *traffic.Stream
	err = s.client(args[2], func(_ *lab.Overlap, source netip.AddrPort) error {
		o.Source = source
		stream, err = traffic.OpenStream(o)
		return err
	})
	if err != nil {
		return "", err
	}
	s.start(args[0], func(ctx context.Context) any { return stream.Run(ctx) })
	return "", nil
}

func (s *script) streamStop(_ context.Context, args []string) (string, error) {
	if err := want(args, 1, 2, "NAME [lost=N]"); err != nil {
		return "", err
	}
	allowed := 0
	if len(args) == 2 {
		value, ok := strings.CutPrefix(args[1], "lost=")
		n, err := strconv.Atoi(value)
		if !ok || err != nil {
			return "", usageError("NAME [lost=N]")
		}
		allowed = n
	}
	report, err := stopped[traffic.StreamReport](s, args[0])
	if err != nil {
		return "", err
	}
	if report.Received == 0 || report.Lost > allowed {
		err = fmt.Errorf("%d of %d packets lost, gaps %+v", report.Lost, report.Sent, report.Gaps)
	}
	return asJSON(report), err
}

// stopped ends what runs under a name and returns its report.
func stopped[T any](s *script, name string) (T, error) {
	var none T
	r, ok := s.running[name]
	if !ok {
		return none, usageError(fmt.Sprintf("nothing runs as %q", name))
	}
	delete(s.running, name)
	report, ok := r.stop().(T)
	if !ok {
		return none, usageError(fmt.Sprintf("%q is something else", name))
	}
	return report, nil
}

func (s *script) connect(ctx context.Context, args []string) (string, error) {
	if err := want(args, 3, 3, "NAME SOURCE SERVER"); err != nil {
		return "", err
	}
	server, err := netip.ParseAddr(args[2])
	if err != nil {
		return "", usageError(err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var x *traffic.Connection
	err = s.client(args[1], func(_ *lab.Overlap, source netip.AddrPort) error {
		x, err = traffic.DialExchange(ctx, source, netip.AddrPortFrom(server, lab.TCPPort))
		return err
	})
	if err != nil {
		return "", err
	}
	s.start(args[0], func(ctx context.Context) any { return x.Run(ctx, 20*time.Millisecond, commandTimeout) })
	return x.Server.String() + "\n", nil
}

func (s *script) connected(_ context.Context, args []string) (string, error) {
	if err := want(args, 1, 1, "NAME"); err != nil {
		return "", err
	}
	report, err := stopped[traffic.ExchangeReport](s, args[0])
	if err == nil && (report.Broken || report.Exchanges == 0) {
		err = fmt.Errorf("the connection broke after %d exchanges: %s", report.Exchanges, report.Error)
	}
	return asJSON(report), err
}

func (s *script) sniff(_ context.Context, args []string) (string, error) {
	if err := want(args, 1, -1, "UPSTREAM PREFIX..."); err != nil {
		return "", err
	}
	allowed, err := parsePrefixes(args[1:])
	if err != nil {
		return "", err
	}
	return "", s.onUpstream(args[:1], func(o *lab.Overlap, u *lab.Upstream) error {
		if s.sniffers[u.Name] != nil {
			return usageError(u.Name + " is sniffed already")
		}
		sniffer, err := o.Sniff(u.Name, allowed...)
		if err != nil {
			return err
		}
		s.sniffers[u.Name] = sniffer
		return nil
	})
}

func (s *script) sniffed(_ context.Context, args []string) (string, error) {
	if err := want(args, 1, 1, "UPSTREAM"); err != nil {
		return "", err
	}
	sniffer := s.sniffers[args[0]]
	if sniffer == nil {
		return "", usageError(fmt.Sprintf("%q is not sniffed", args[0]))
	}
	delete(s.sniffers, args[0])
	report, err := sniffer.Stop()
	return asJSON(report), errors.Join(err, report.Err())
}

func (s *script) inject(ctx context.Context, args []string) (string, error) {
	const usage = "UPSTREAM|client tcp|udp|icmp|icmp-reply SOURCE DEST [FLAGS]"
	if err := want(args, 4, 5, usage); err != nil {
		return "", err
	}
	o, err := s.topology()
	if err != nil {
		return "", err
	}
	if !slices.Contains([]string{"tcp", "udp", "icmp", "icmp-reply"}, args[1]) {
		return "", usageError(usage)
	}
	in := traffic.Injection{Protocol: args[1]}
	var sourceErr, destErr, flagsErr error
	in.Source, sourceErr = traffic.ParseSource(args[2])
	in.Dest, destErr = traffic.ParseSource(args[3])
	if len(args) == 5 {
		in.Flags, flagsErr = traffic.ParseFlags(args[4])
	}
	if err := errors.Join(sourceErr, destErr, flagsErr); err != nil {
		return "", usageError(usage + ": " + err.Error())
	}
	return "", o.Inject(ctx, args[0], in)
}
