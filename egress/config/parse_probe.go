package config

import (
	"slices"
	"strconv"
	"time"

	"github.com/egret-router/egret/probes"
)

// Probe defaults: 2 attempts of 300 ms make a verdict of down in under 1 s.
const (
	DefaultProbeInterval = 300 * time.Millisecond
	DefaultFall          = 2
	DefaultRise          = 3
	DefaultStatusMin     = 200
	DefaultStatusMax     = 399
)

// What the probes package can run.
const (
	minProbeInterval  = 10 * time.Millisecond
	maxProbeInterval  = time.Hour
	maxAttemptTimeout = time.Minute
	maxAttempts       = 1000
	maxTargets        = 256
	maxURL            = 2048 // bytes
	maxBody           = 1024 // bytes
	maxHost           = 255  // bytes
)

func (p *parser) probes(n *network, raws []RawProbe) []probes.Config {
	var configs []probes.Config
	names := map[string]path{}
	for i, raw := range raws {
		at := n.at.key("probes").index(i)
		name := raw.Name
		if name == "" {
			name = raw.Type + strconv.Itoa(i)
		} else {
			p.name(at.key("name"), name, maxName)
		}
		if first, taken := names[name]; taken {
			p.add(at.key("name"), "%s is the name of %s already", quote(name), first)
		}
		names[name] = at
		configs = append(configs, p.probe(n, at, name, raw))
	}
	return configs
}

// probeTypes are the kinds of probes in the order of messages.
func probeTypes() []string {
	return words([]probes.Type{probes.ICMP, probes.ARPND, probes.TCP, probes.DNS, probes.HTTP})
}

func (p *parser) probe(n *network, at path, name string, raw RawProbe) probes.Config {
	c := probes.Config{
		Name:     n.name + "/" + name,
		Network:  n.name,
		Device:   n.name, // the VRF device
		Interval: p.duration(at.key("interval"), raw.Interval, DefaultProbeInterval, minProbeInterval, maxProbeInterval),
		Rise:     int(p.integer(at.key("rise"), raw.Rise, DefaultRise, 1, maxAttempts)),
		Fall:     int(p.integer(at.key("fall"), raw.Fall, DefaultFall, 1, maxAttempts)),
		HoldDown: p.duration(at.key("holdDown"), raw.HoldDown, 0, 0, probes.MaxHoldDown),
		Damping:  p.damping(at.key("damping"), raw.Damping),
		Require:  p.quorum(at.key("require"), raw.Require, len(raw.Targets)),
	}
	longest := min(c.Interval, maxAttemptTimeout)
	c.AttemptTimeout = p.duration(at.key("attemptTimeout"), raw.AttemptTimeout, longest, time.Millisecond, maxAttemptTimeout)
	if c.AttemptTimeout > c.Interval {
		p.add(at.key("attemptTimeout"), "%s is longer than the interval (%s): attempts do not overlap", c.AttemptTimeout, c.Interval)
	}
	kinds := probeTypes()
	if p.template && !slices.Contains(kinds, raw.Type) { // these have a message of their own
		kinds = nextHopProbeTypes()
	}
	if p.required(at.key("type"), raw.Type, alternatives(kinds)) {
		c.Type = probes.Type(p.oneOf(at.key("type"), raw.Type, "", kinds...))
	}
	p.targets(n, at, raw, &c)
	p.probePort(n, at, raw, &c)
	c.HTTP = p.http(at.key("http"), raw.HTTP, c)
	c.DNS = p.dns(at.key("dns"), raw.DNS, c)
	return c
}

// quorum checks how many of the targets must be up.
func (p *parser) quorum(at path, raw Quorum, targets int) probes.Require {
	switch r := probes.Require(raw); r {
	case "":
		return probes.Any
	case probes.Any, probes.All:
		return r
	}
	switch n, err := strconv.Atoi(string(raw)); {
	case err != nil || n < 1:
		p.add(at, "%s is not allowed: use any, all, or the number of targets that must be up", quote(string(raw)))
	case n > targets && targets > 0:
		p.add(at, "%d is more than there are targets (%d): the probe could never be up", n, targets)
	default:
		return probes.Quorum(n)
	}
	return probes.Any
}

// damping checks the suppression of targets that flap; nil is none.
func (p *parser) damping(at path, raw RawDamping) *probes.Damping {
	d := probes.DefaultDamping()
	figure := func(key string, given *int64, def *int) {
		*def = int(p.integer(at.key(key), given, int64(*def), 1, probes.MaxPenalty))
	}
	figure("penalty", raw.Penalty, &d.Penalty)
	figure("suppress", raw.Suppress, &d.Suppress)
	figure("reuse", raw.Reuse, &d.Reuse)
	d.HalfLife = p.duration(at.key("halfLife"), raw.HalfLife, d.HalfLife, probes.MinHalfLife, probes.MaxHoldDown)
	d.MaxSuppress = p.duration(at.key("maxSuppress"), raw.MaxSuppress, d.MaxSuppress, probes.MinHalfLife, probes.MaxHoldDown)
	switch {
	case d.Suppress <= d.Reuse:
		p.add(at.key("suppress"), "%d is not above reuse (%d): nothing would stay suppressed", d.Suppress, d.Reuse)
	case d.Ceiling() < float64(d.Suppress):
		p.add(at.key("maxSuppress"), "%s lets the penalty rise to %.0f only, which is below suppress (%d): nothing would ever be suppressed",
			short(d.MaxSuppress), d.Ceiling(), d.Suppress)
	}
	if raw.Enabled != nil && !*raw.Enabled {
		return nil
	}
	return &d
}
