package scenario

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/egret-router/egret/lab"
)

func (s *script) setupCommands() map[string]command {
	return map[string]command{
		"require": s.require, "overlap": s.buildOverlap, "namespace": s.addNamespaces, "link": s.link,
		"ip": s.ip, "sysctl": s.sysctl, "in": s.in, "cut": s.cut, "heal": s.heal, "sick": s.sick, "well": s.well,
	}
}

func (s *script) require(_ context.Context, args []string) (string, error) {
	var features []lab.Feature
	for _, word := range args {
		features = append(features, lab.Feature(word))
	}
	err := lab.Check(features...)
	if err != nil && !lab.Required() {
		s.script.Skip(err)
	}
	return "", err
}

func (s *script) buildOverlap(_ context.Context, args []string) (string, error) {
	var opts lab.OverlapOptions
	for _, word := range args {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch {
		case key == "rp_filter":
			opts.RPFilter, err = strconv.Atoi(value)
		case key == "hold":
			opts.HoldTime, err = time.ParseDuration(value)
		case word == "restart=off":
			opts.NoGracefulRestart = true
		default:
			err = fmt.Errorf("unknown option %q", word)
		}
		if err != nil {
			return "", usageError("[rp_filter=N] [hold=D] [restart=off]: " + err.Error())
		}
	}
	o, err := lab.NewOverlap(s.network(), opts)
	if err != nil {
		return "", err
	}
	s.overlap = o
	for _, u := range o.Upstreams() {
		s.routers[u.Name], s.routers[u.RouterNS.Name] = u.Router, u.Router
	}
	return "", nil
}

func (s *script) addNamespaces(_ context.Context, args []string) (string, error) {
	for _, name := range args {
		if _, err := s.network().Namespace(name); err != nil {
			return "", err
		}
	}
	return "", want(args, 1, -1, "NAME...")
}

func (s *script) link(_ context.Context, args []string) (string, error) {
	if err := want(args, 2, 2, "NS:DEV NS:DEV"); err != nil {
		return "", err
	}
	var ends [2]*lab.NS
	var devices [2]string
	for i, end := range args {
		name, device, ok := strings.Cut(end, ":")
		if !ok {
			return "", usageError("NS:DEV NS:DEV")
		}
		ns, err := s.namespace(name)
		if err != nil {
			return "", err
		}
		ends[i], devices[i] = ns, device
	}
	return "", s.network().Link(ends[0], devices[0], ends[1], devices[1])
}

func (s *script) ip(ctx context.Context, args []string) (string, error) {
	if err := want(args, 2, -1, "NS WORDS..."); err != nil {
		return "", err
	}
	return s.in(ctx, slices.Concat(args[:1], []string{"ip"}, args[1:]))
}

func (s *script) in(ctx context.Context, args []string) (string, error) {
	if err := want(args, 2, -1, "NS PROGRAM ARGS..."); err != nil {
		return "", err
	}
	ns, err := s.namespace(args[0])
	if err != nil {
		return "", err
	}
	return ns.RunContext(ctx, args[1:]...)
}

func (s *script) sysctl(_ context.Context, args []string) (string, error) {
	if err := want(args, 3, 3, "NS KEY VALUE"); err != nil {
		return "", err
	}
	ns, err := s.namespace(args[0])
	if err != nil {
		return "", err
	}
	return "", ns.Sysctl(args[1], args[2])
}

// onUpstream calls do with the only argument, an upstream.
func (s *script) onUpstream(args []string, do func(*lab.Overlap, *lab.Upstream) error) error {
	if err := want(args, 1, 1, "UPSTREAM"); err != nil {
		return err
	}
	o, err := s.topology()
	if err != nil {
		return err
	}
	u, err := o.Upstream(args[0])
	if err != nil {
		return usageError(err.Error())
	}
	return do(o, u)
}

func (s *script) cut(_ context.Context, args []string) (string, error) {
	return "", s.onUpstream(args, func(o *lab.Overlap, u *lab.Upstream) error { return o.CutBeyond(u.Name) })
}

func (s *script) heal(_ context.Context, args []string) (string, error) {
	return "", s.onUpstream(args, func(o *lab.Overlap, u *lab.Upstream) error { return o.Heal(u.Name) })
}

func (s *script) sick(_ context.Context, args []string) (string, error) {
	return "", s.onUpstream(args, func(_ *lab.Overlap, u *lab.Upstream) error {
		u.Server.SetHealthy(false)
		return nil
	})
}

func (s *script) well(_ context.Context, args []string) (string, error) {
	return "", s.onUpstream(args, func(_ *lab.Overlap, u *lab.Upstream) error {
		u.Server.SetHealthy(true)
		return nil
	})
}

const routerStartUsage = "NS frr|bird asn=N id=ADDR peer=ADDR/ASN... announce=PREFIX... accept=PREFIX..."

func (s *script) routerStart(_ context.Context, args []string) (string, error) {
	if err := want(args, 2, -1, routerStartUsage); err != nil {
		return "", err
	}
	ns, err := s.namespace(args[0])
	if err != nil {
		return "", err
	}
	c, err := parseRouterConfig(args[2:])
	if err != nil {
		return "", err
	}
	starts := map[string]func(*lab.NS, lab.RouterConfig) (*lab.Router, error){"frr": lab.StartFRR, "bird": lab.StartBIRD}
	start, ok := starts[args[1]]
	if !ok {
		return "", usageError(routerStartUsage)
	}
	r, err := start(ns, c)
	if err == nil {
		s.routers[ns.Name] = r
	}
	return "", err
}

func parseRouterConfig(words []string) (lab.RouterConfig, error) {
	var c lab.RouterConfig
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "asn":
			c.ASN, err = parseASN(value)
		case "id":
			c.RouterID, err = netip.ParseAddr(value)
		case "peer":
			var p lab.RouterPeer
			address, asn, _ := strings.Cut(value, "/")
			if p.ASN, err = parseASN(asn); err == nil {
				p.Address, err = netip.ParseAddr(address)
			}
			c.Peers = append(c.Peers, p)
		case "announce", "accept":
			var p netip.Prefix
			p, err = netip.ParsePrefix(value)
			if key == "announce" {
				c.Announce = append(c.Announce, p)
			} else {
				c.Accept = append(c.Accept, p)
			}
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return c, usageError(routerStartUsage + ": " + err.Error())
		}
	}
	return c, nil
}

func parseASN(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}
