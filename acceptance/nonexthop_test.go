package acceptance

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// silence is how long a packet that should not be answered is waited for.
const silence = 2 * time.Second

// icmpSeen counts the ICMP errors that arrive at the clients, by type and code.
type icmpSeen struct {
	mu sync.Mutex
	by map[string]int
}

func watchErrors(f *fan) *icmpSeen {
	f.t.Helper()
	seen := &icmpSeen{by: map[string]int{}}
	s, err := f.SniffClient(traffic.SnifferOptions{OnLeak: func(_ time.Time, p traffic.Packet) {
		if p.Protocol == 1 && p.SourcePort == 3 || p.Protocol == 58 && p.SourcePort == 1 {
			seen.mu.Lock()
			defer seen.mu.Unlock()
			seen.by[fmt.Sprintf("%d: %d/%d", p.Protocol, p.SourcePort, p.DestPort)]++
		}
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.Defer(func() error { _, err := s.Stop(); return err })
	return seen
}

func (s *icmpSeen) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[what]
}

func (s *icmpSeen) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.by)
}

// The errors of a prohibit rule: communication administratively prohibited.
const (
	prohibited4 = "1: 3/13"
	prohibited6 = "58: 1/1"
)

// TestNoNextHop: what clients meet whose policy is missing, and those of a
// network none of whose next hops works, with each setting of onNoNextHop.
func TestNoNextHop(t *testing.T) {
	f := newFan(t, editClients)
	ghost := fmt.Sprintf("\n  - {clients: [%s, \"%s\"], policy: ghost}", lab.FanClient(lab.IPv4, editClients-1), lab.FanClient(lab.IPv6, editClients-1))
	config := func(mode string) fanOptions { return fanOptions{onNoNextHop: mode, bindings: ghost} }
	f.boot(config("drop"))
	f.usable(0, 1, 2, 3)
	seen := watchErrors(f)
	t.Run("missing policy", func(t *testing.T) {
		f.silent(t, editClients-1)
		if seen.all() != "map[]" {
			t.Errorf("ICMP errors %s, want silence", seen.all())
		}
	})
	established := f.newFlows(t, 0)
	if err := talk(established); err != nil {
		t.Fatal(err)
	}
	for i := range f.Routers {
		if err := f.SetEcho(i, false); err != nil {
			t.Fatal(err)
		}
	}
	f.wait(map[string]string{"red": "Down"})
	t.Run("drop", func(t *testing.T) {
		f.silent(t, 1)
		if seen.all() != "map[]" {
			t.Errorf("ICMP errors %s, want silence", seen.all())
		}
	})
	t.Run("reject", func(t *testing.T) {
		f.reload(t, config("reject").config())
		f.prohibited(t, 2, seen)
	})
	t.Run("fallback", func(t *testing.T) { f.fallback(t, config("fallback"), established) })
}

// newFlows opens new flows of a client, UDP in both families.
func (f *fan) newFlows(t *testing.T, client int) []*flow {
	t.Helper()
	return []*flow{f.flow(lab.IPv4, client, false, lab.Server4), f.flow(lab.IPv6, client, false, lab.Server6)}
}

// connect tries a TCP connection in each family.
func (f *fan) connect(client int, family lab.Family, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(f.t.Context(), wait)
	defer cancel()
	return f.Client.Do(func() error {
		x, err := traffic.DialExchange(ctx, netip.AddrPortFrom(lab.FanClient(family, client), 0), netip.AddrPortFrom(netip.MustParseAddr(serverOf(family)), lab.TCPPort))
		if err == nil {
			x.Close()
		}
		return err
	})
}

func (f *fan) silent(t *testing.T, client int) {
	t.Helper()
	for _, x := range f.newFlows(t, client) {
		if _, err := x.ask("anybody", silence); err != errSilence {
			t.Errorf("%s ended with %v, want silence", x, err)
		}
	}
	for _, family := range lab.Families() {
		if err := f.connect(client, family, silence); err == nil || strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "route") {
			t.Errorf("%s: a connection ended with %v, want silence", family, err)
		}
	}
}

// prohibited: the client is told at once.
func (f *fan) prohibited(t *testing.T, client int, seen *icmpSeen) {
	for _, x := range f.newFlows(t, client) {
		if err := x.exchange(patience); err == nil || strings.Contains(err.Error(), errSilence.Error()) {
			t.Errorf("%s ended with %v, want an error", x, err)
		} else {
			t.Log(err)
		}
	}
	for _, family := range lab.Families() {
		if err := f.connect(client, family, patience); err == nil || strings.Contains(err.Error(), "deadline") || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: a connection ended with %v, want an error", family, err)
		}
	}
	lab.Eventually(t, patience, "ICMP prohibited in both families", func() error {
		if seen.count(prohibited4) < 2 || seen.count(prohibited6) < 2 {
			return fmt.Errorf("seen: %s", seen.all())
		}
		return nil
	})
}

// fallback: new flows are routed normally and untranslated while the network is
// down, and stay there; what was established is dropped until it returns.
func (f *fan) fallback(t *testing.T, o fanOptions, established []*flow) {
	f.reload(t, o.config())
	normal := f.newFlows(t, 3)
	if err := talk(normal); err != nil {
		t.Fatal(err)
	}
	untranslated := func() {
		t.Helper()
		for _, x := range normal {
			if x.server != "out" || x.seen != x.client {
				t.Errorf("%s was answered by %s, which saw %s", x, x.server, x.seen)
			}
		}
	}
	untranslated()
	if err := silent(established); err != nil {
		t.Errorf("established flows: %v", err)
	}
	for i := range f.Routers {
		if err := f.SetEcho(i, true); err != nil {
			t.Fatal(err)
		}
	}
	f.usable(0, 1, 2, 3)
	f.up()
	f.empty("after the return")
	fresh := f.newFlows(t, 3)
	if err := talk(append(append(fresh, established...), normal...)); err != nil {
		t.Fatal(err)
	}
	untranslated()
	for _, x := range append(fresh, established...) {
		if x.server != "red" {
			t.Errorf("%s was answered by %s, want red", x, x.server)
		}
	}
}
