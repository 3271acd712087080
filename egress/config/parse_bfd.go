package config

import (
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/probes/bfd"
)

// Bounds of bfd.linger.
const (
	minBFDLinger = 10 * time.Second
	maxBFDLinger = 24 * time.Hour
)

// bfdLinger checks how long sessions outlive the daemon: peers that keep our
// routes over a restart would drop them when BFD ends before the restart time.
func (p *parser) bfdLinger(at path, d Duration, spec egress.Spec) time.Duration {
	longest, whose := longestRestart(spec)
	linger := p.duration(at, d, max(bfd.DefaultLinger, longest), minBFDLinger, maxBFDLinger)
	if linger >= minBFDLinger && linger < longest {
		p.add(at, "%v is shorter than %s.bgp.gracefulRestart.restartTime (%v): its peers would give up what they keep for us", linger, whose, longest)
	}
	return linger
}

// longestRestart is the longest restart time of those with BFD sessions, and
// whose it is.
func longestRestart(spec egress.Spec) (longest time.Duration, whose string) {
	look := func(b *egress.BGP, sessions bool, name path) {
		if b == nil || !sessions || b.GracefulRestart == nil || b.GracefulRestart.RestartTime <= longest {
			return
		}
		longest, whose = b.GracefulRestart.RestartTime, string(name)
	}
	for i, n := range spec.Networks {
		look(n.BGP, len(n.NextHopBFD) > 0 || n.BGP != nil && len(n.BGP.BFD) > 0, path("networks").index(i))
	}
	if c := spec.Clients.BGP; c != nil {
		look(&c.BGP, len(c.BFD) > 0, "clients")
	}
	return longest, whose
}
