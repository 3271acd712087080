//go:build bench

package acceptance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// TestTwinFigures measures how long the flows of a gateway stop whose upstream
// goes dark, until the clients' router sends them to the other gateway, and how
// much of that was detection.
func TestTwinFigures(t *testing.T) {
	lab.Require(t, lab.Root, lab.VRF, lab.Nft, lab.Conntrack, lab.FRR, lab.BIRD)
	w := &twin{Twin: lab.MustTwin(lab.New(t), 8), t: t}
	config := func(g *lab.TwinGateway, probe string) string {
		return strings.ReplaceAll(twinConfig(g), "interval: 1s, fall: 6, rise: 1", probe)
	}
	const standing = "interval: 300ms, fall: 2, rise: 1, damping: {enabled: false}"
	for i, g := range w.Gateways {
		w.gws[i] = &running{t: t, host: &g.EgretHost}
		w.gws[i].start(config(g, standing))
	}
	for _, g := range w.gws {
		g.wait(map[string]string{"red": "Up"})
	}
	w.darkFigure(t, "upstream of one of two gateways dark, ICMP 300 ms x 2 (defaults)")
	for i, g := range w.Gateways {
		w.gws[i].reload(t, config(g, "interval: 50ms, fall: 3, rise: 1, damping: {enabled: false}"))
	}
	w.darkFigure(t, "upstream of one of two gateways dark, ICMP 50 ms x 3")
}

func (w *twin) darkFigure(t *testing.T, what string) {
	t.Helper()
	const rounds = 5
	var gaps, beyond []time.Duration
	for range rounds {
		w.gws[0].wait(map[string]string{"red": "Up"})
		w.ways(1, 2)
		begin := time.Now()
		gap := w.darkGap(t)
		detection, withdraw := w.told(t, begin)
		if err := w.ConnectServer(1); err != nil {
			t.Fatal(err)
		}
		gaps, beyond = append(gaps, gap), append(beyond, gap-detection)
		t.Logf("gap %v, detection %v, withdrawn %v after the verdict", gap, detection, withdraw)
	}
	slices.Sort(gaps)
	slices.Sort(beyond)
	t.Logf("FIGURE %s: no traffic for median %v max %v; beyond detection median %v max %v", what,
		gaps[rounds/2].Round(time.Millisecond), gaps[rounds-1].Round(time.Millisecond), beyond[rounds/2].Round(time.Millisecond), beyond[rounds-1].Round(time.Millisecond))
}

// darkGap is the longest gap of a flow. New flows are not begun: the flows keep
// their ports and go on by the other gateway, with its address.
func (w *twin) darkGap(t *testing.T) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	var mu sync.Mutex
	var longest time.Duration
	for i := range 12 {
		source := lab.TwinClient(lab.IPv4, i%8)
		s, err := w.Stream(traffic.StreamOptions{Protocol: traffic.UDP, Source: netip.AddrPortFrom(source, 0),
			Dest: netip.AddrPortFrom(server(source), lab.UDPPort), Interval: duelInterval})
		if err != nil {
			t.Fatal(err)
		}
		run.Go(func() {
			r := s.Run(ctx)
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, time.Duration(r.LongestMS*float64(time.Millisecond)))
		})
	}
	timer := time.NewTimer(time.Second)
	<-timer.C
	err := w.CutBeyond(1)
	timer.Reset(4 * time.Second)
	<-timer.C
	cancel()
	run.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return longest
}

// told reads from the events how long detection and withdrawal took.
func (w *twin) told(t *testing.T, since time.Time) (detection, withdraw time.Duration) {
	t.Helper()
	out, err := w.gws[0].host.Egret("events", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		var e egress.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.At.Before(since) {
			continue
		}
		if e.Kind == egress.EventProbe && e.Detection > 0 {
			detection = max(detection, e.Detection)
		}
		if e.Kind == egress.EventPool && e.Network == egress.ClientsNetwork && e.State == "withdrawn" {
			withdraw = max(withdraw, e.Withdraw)
		}
	}
	if detection == 0 {
		t.Fatal(fmt.Errorf("no detection in the events:\n%s", out))
	}
	return detection, withdraw
}
