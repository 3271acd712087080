//go:build bench

package acceptance

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// receiver is one that learns routes from a feeder of its own (BIRD).
type receiver struct {
	name   string
	ns     *lab.NS
	feeder *lab.Router
	pids   func() []int
}

// scaleSizes are the numbers of routes; each is a static protocol of the feeder.
var scaleSizes = []int{10_000, 100_000}

// TestScaleFigures measures how long 10,000 and 100,000 routes take from the
// neighbour's announcement to the last route in the kernel, and until all are gone
// again, with Egret, BIRD and FRR in turn in the same guest; and how much memory
// they have then.
func TestScaleFigures(t *testing.T) {
	lab.Require(t, lab.Root, lab.VRF, lab.Nft, lab.Conntrack, lab.FRR, lab.BIRD)
	l := lab.New(t)
	var receivers []*receiver
	for i, name := range []string{"egret", "bird", "frr"} {
		receivers = append(receivers, newReceiver(t, l, i+1, name))
	}
	for _, n := range scaleSizes {
		rounds := 3
		if n > 50_000 {
			rounds = 1 // FRR takes minutes here
		}
		learn, forget := map[string][]time.Duration{}, map[string][]time.Duration{}
		memory := map[string]int{}
		for range rounds {
			for _, r := range receivers {
				base := r.count(t)
				learn[r.name] = append(learn[r.name], r.timed(t, "enable", n, func(now int) bool { return now-base >= n }))
				memory[r.name] = max(memory[r.name], r.memory(t))
				forget[r.name] = append(forget[r.name], r.timed(t, "disable", n, func(now int) bool { return now <= base }))
			}
		}
		for _, r := range receivers {
			t.Logf("FIGURE %6d routes: %-5s learns in %v, forgets in %v, %d MiB; Egret/it: learn %.2f, forget %.2f", n, r.name,
				median(learn[r.name]), median(forget[r.name]), memory[r.name]>>20,
				ratio(median(learn["egret"]), median(learn[r.name])), ratio(median(forget["egret"]), median(forget[r.name])))
		}
	}
	egret := receivers[0]
	n := scaleSizes[len(scaleSizes)-1]
	base := egret.count(t)
	egret.timed(t, "enable", n, func(now int) bool { return now-base >= n })
	begin := time.Now()
	egret.feeder.Kill9()
	lab.Eventually(t, patience, "forwarding to the dead neighbour ends", func() error {
		out, err := egret.ns.Run("ip", "route", "get", "vrf", "red", "10.0.0.1")
		if err == nil && strings.Contains(out, "172.16.0.2") {
			return errors.New(out)
		}
		return nil
	})
	stopped := time.Since(begin)
	lab.Eventually(t, patience, "the routes are gone", func() error {
		if now := egret.count(t); now > base {
			return fmt.Errorf("%d routes are left", now-base)
		}
		return nil
	})
	t.Logf("FIGURE session lost with %d routes: forwarding ended after %v, all routes gone after %v", n, stopped.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
}

func newReceiver(t *testing.T, l *lab.Lab, i int, name string) *receiver {
	t.Helper()
	r := &receiver{name: name, ns: l.MustNamespace(name)}
	feed := l.MustNamespace("feed-" + name)
	l.MustLink(r.ns, "eth1", feed, "eth0")
	feed.MustIP("addr add 172.16.0.2/30 dev eth0")
	gateway, router := netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("172.16.0.2")
	var err error
	r.feeder, err = lab.StartBIRD(feed, lab.RouterConfig{ASN: 65001, RouterID: router, NoGracefulRestart: true,
		Peers: []lab.RouterPeer{{Address: gateway, ASN: 64512}}})
	if err != nil {
		t.Fatal(err)
	}
	r.feed(t)
	learns := lab.RouterConfig{ASN: 64512, RouterID: gateway, NoGracefulRestart: true, Peers: []lab.RouterPeer{{Address: router, ASN: 65001}},
		Accept: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	switch name {
	case "egret":
		g := &running{t: t, host: lab.HostEgret(r.ns)}
		g.start(`networks:
  - name: red
    interfaces: [eth1]
    addresses: [172.16.0.1/30]
    bgp: {asn: 64512, gracefulRestart: {enabled: false}, peers: [{address: 172.16.0.2, asn: 65001, import: [10.0.0.0/8]}]}
`)
		r.pids = func() []int { return []int{g.daemon.PID()} }
	default:
		r.ns.MustIP("addr add 172.16.0.1/30 dev eth1")
		start := lab.StartBIRD
		if name == "frr" {
			start = lab.StartFRR
		}
		router, err := start(r.ns, learns)
		if err != nil {
			t.Fatal(err)
		}
		r.pids = router.PIDs
	}
	if err := r.feeder.WaitEstablished(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	return r
}

// feed gives the feeder its routes, in protocols that are disabled.
func (r *receiver) feed(t *testing.T) {
	t.Helper()
	file := r.feeder.NS.Path("/run/bird.conf")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.Write(text)
	for _, n := range scaleSizes {
		fmt.Fprintf(&b, "protocol static feed%d {\n  disabled;\n  ipv4;\n", n)
		for i := range n {
			fmt.Fprintf(&b, "  route 10.%d.%d.%d/26 blackhole;\n", i>>10, i>>2&255, i&3<<6)
		}
		b.WriteString("}\n")
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := r.feeder.Command("configure"); err != nil || !strings.Contains(out, "Reconfigur") {
		t.Fatalf("configure BIRD: %v: %s", err, out)
	}
}

// timed enables or disables n routes at the feeder, and waits for their number in
// the kernel.
func (r *receiver) timed(t *testing.T, how string, n int, done func(now int) bool) time.Duration {
	t.Helper()
	begin := time.Now()
	if _, err := r.feeder.Command(how, fmt.Sprint("feed", n)); err != nil {
		t.Fatal(err)
	}
	for time.Since(begin) < 5*time.Minute {
		if done(r.count(t)) {
			return time.Since(begin).Round(time.Millisecond)
		}
		pause := time.NewTimer(50 * time.Millisecond)
		<-pause.C
	}
	t.Fatalf("%s: %s %d routes took more than 5 minutes, %d are there", r.name, how, n, r.count(t))
	return 0
}

// count is the number of IPv4 routes in the namespace, of all tables.
func (r *receiver) count(t *testing.T) int {
	t.Helper()
	var text []byte
	err := r.ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/fib_triestat")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "Prefixes:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// memory is what the processes have resident, in bytes.
func (r *receiver) memory(t *testing.T) int {
	t.Helper()
	sum := 0
	for _, pid := range r.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			t.Fatal(err)
		}
		pages, err := strconv.Atoi(strings.Fields(string(text))[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += pages * os.Getpagesize()
	}
	return sum
}

func median(ds []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(ds))[len(ds)/2]
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }
