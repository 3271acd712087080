package cluster

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/egret-router/egret/egress/config"
)

// FailureDetection is egressGatewayFailureDetection: a gateway is down when all
// attempts at all targets of one kind failed for the timeout of that kind.
type FailureDetection struct {
	// HealthTimeoutDataStore is taken over for compatibility, and means nothing: a
	// gateway goes on without the API server.
	HealthTimeoutDataStore time.Duration
	ICMP                   *ICMPProbe
	HTTP                   *HTTPProbe
}

// ICMPProbe pings addresses. The zero Interval and Timeout mean 5 s and 15 s.
type ICMPProbe struct {
	IPs               []string
	Interval, Timeout time.Duration
}

// HTTPProbe fetches URLs. The zero Interval and Timeout mean 10 s and 30 s. The
// host of a URL is an address: a network has no resolver.
type HTTPProbe struct {
	URLs              []string
	Interval, Timeout time.Duration
}

// The defaults of Calico.
const (
	defaultICMPInterval = 5 * time.Second
	defaultICMPTimeout  = 15 * time.Second
	defaultHTTPInterval = 10 * time.Second
	defaultHTTPTimeout  = 30 * time.Second
)

const detectionField = "spec.egressGatewayFailureDetection"

// probes are the probes of f; name is that of the gateway in the configuration.
// What is wrong goes to r, and the probe is left out.
func (f *FailureDetection) probes(name string, r *reporter) []config.RawProbe {
	if f == nil {
		return nil
	}
	if f.ICMP == nil && f.HTTP == nil {
		r.add(ReasonInvalid, detectionField, "has neither icmpProbe nor httpProbe: name one, or leave it out")
	}
	if f.HealthTimeoutDataStore < 0 || f.HealthTimeoutDataStore > 0 && f.HealthTimeoutDataStore < time.Second {
		r.add(ReasonInvalid, detectionField+".healthTimeoutDataStoreSeconds", "is below 1")
	}
	var list []config.RawProbe
	if p := f.ICMP; p != nil {
		list = r.window(list, ".icmpProbe", "ips", config.RawProbe{Name: probeName(name, "icmp"), Type: "icmp"}, p.IPs,
			orDefault(p.Interval, defaultICMPInterval), orDefault(p.Timeout, defaultICMPTimeout))
	}
	if p := f.HTTP; p != nil {
		list = r.window(list, ".httpProbe", "urls", config.RawProbe{Name: probeName(name, "http"), Type: "http"}, p.URLs,
			orDefault(p.Interval, defaultHTTPInterval), orDefault(p.Timeout, defaultHTTPTimeout))
	}
	return list
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// probeName is unique in a network, and as long as a name may be.
func probeName(gateway, kind string) string { return plainName(gateway + "-" + kind) }

// window appends a probe that is down when every attempt of a time failed. The
// last success may lie just before an attempt fails, so the last of those counted
// ends at the timeout: fall attempts, one per interval, and the time of one. If
// the timeout is no more than an interval, one attempt of at most a second
// decides. One success brings the gateway back.
func (r *reporter) window(list []config.RawProbe, at, key string, probe config.RawProbe, targets []string, interval, timeout time.Duration) []config.RawProbe {
	at = detectionField + at
	before := len(r.problems)
	if len(targets) == 0 {
		r.add(ReasonInvalid, at+"."+key, "is missing: name at least one")
	}
	if interval < 0 || timeout < 0 {
		r.add(ReasonInvalid, at, "intervalSeconds and timeoutSeconds cannot be negative")
	} else if timeout < interval {
		r.add(ReasonInvalid, at+".timeoutSeconds", "%s is below intervalSeconds (%s): no attempt would be made in that time", timeout, interval)
	}
	if len(r.problems) > before {
		return list
	}
	fall := min(max((timeout+interval-1)/interval-1, 1), 1000)
	attempt := min(max(timeout-fall*interval, min(interval, time.Second)), interval, time.Minute)
	probe.Interval, probe.AttemptTimeout = config.Duration(interval.String()), config.Duration(attempt.String())
	one, falls := int64(1), int64(fall)
	probe.Rise, probe.Fall = &one, &falls
	for _, t := range targets {
		probe.Targets = append(probe.Targets, config.RawTarget{Target: t})
	}
	return append(list, probe)
}

// maxReplicas is what Kubernetes counts in 32 bits.
const maxReplicas = math.MaxInt32

// checkNumbers checks what an API server may have let through.
func (g *Gateway) checkNumbers(r *reporter) {
	if g.Replicas < 0 || g.Replicas > maxReplicas {
		r.add(ReasonInvalid, "spec.replicas", "%d is out of range: 0 (every node) to %d are allowed", g.Replicas, maxReplicas)
	}
	if g.Blocks < 0 || g.Blocks > maxBlocks {
		r.add(ReasonInvalid, "spec.blocks", "%d is out of range: 1 to %d are allowed", g.Blocks, maxBlocks)
	}
	if g.GracePeriod < 0 {
		r.add(ReasonInvalid, "spec.terminationGracePeriodSeconds", "%s is negative", g.GracePeriod)
	}
	for _, key := range slices.Sorted(maps.Keys(g.Labels)) {
		if !labelName(key) {
			r.add(ReasonInvalid, "spec.labels", "%s is no name of a label", quote(key))
		}
	}
}

func labelName(s string) bool {
	p := selectorParser{text: s}
	return s != "" && len(s) <= maxLabel && p.peekLabel() == s
}
