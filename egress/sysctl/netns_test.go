package sysctl

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRealKernel works on /proc/sys in a network namespace of its own, on a
// thread that ends with the test.
func TestRealKernel(t *testing.T) {
	const forwarding = "net.ipv4.ip_forward"
	outside := func() string {
		v, err := readValue("/proc/sys/net/ipv4/ip_forward")
		if err != nil {
			t.Error(err)
		}
		return v
	}
	before := outside()
	ended := make(chan bool)
	skip := ""
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			skip = "unshare network namespace: " + err.Error()
			return
		}
		if f, err := os.OpenFile("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY, 0); err != nil {
			skip = "write below /proc/sys: " + err.Error()
			return
		} else if err := f.Close(); err != nil {
			t.Error(err)
		}
		realKernel(t, forwarding)
	}()
	<-ended
	if skip != "" {
		if os.Getenv("EGRET_LAB_REQUIRE") == "1" {
			t.Fatal(skip)
		}
		t.Skip(skip)
	}
	if after := outside(); after != before {
		t.Errorf("ip_forward outside of the namespace went from %q to %q", before, after)
	}
}

// realKernel must not call t.FailNow: it is not on the test's goroutine.
func realKernel(t *testing.T, forwarding string) {
	s := Open("/proc/sys", filepath.Join(t.TempDir(), "sysctl.json"), slog.New(slog.DiscardHandler))
	value := func(k string) string {
		v, err := readValue(key(k).path("/proc/sys"))
		if err != nil {
			t.Error(err)
		}
		return v
	}
	// A new namespace starts with 0 or with a copy of the first one's values
	// (net.core.devconf_inherit_init_net): begin with a known one.
	if err := writeValue("/proc/sys/net/ipv4/ip_forward", "0"); err != nil {
		t.Error(err)
	}
	const rmem = "net.ipv4.tcp_rmem"
	buffers := value(rmem)
	want := []Setting{
		{Key: "net.ipv4.conf.lo.forwarding", Value: "0"},
		{Key: rmem, Value: "4096 100000 200000"},
		{Key: forwarding, Value: "1"},
		{Key: "net.ipv4.conf.no/such.forwarding", Value: "1", Optional: true},
	}
	if _, err := s.Set(t.Context(), want); err != nil {
		t.Error(err)
	}
	if value(forwarding) != "1" || value("net.ipv4.conf.lo.forwarding") != "0" || !equalValue(value(rmem), "4096 100000 200000") {
		t.Errorf("after set: %q %q %q", value(forwarding), value("net.ipv4.conf.lo.forwarding"), value(rmem))
	}
	if made, err := s.Set(t.Context(), want); err != nil || len(made) != 0 {
		t.Errorf("second set: %v, %v", made, err)
	}
	if _, err := s.Set(t.Context(), append(want, Setting{Key: rmem[:len(rmem)-4] + "wmem", Value: "nonsense"})); err == nil {
		t.Error("the kernel's refusal is not reported")
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	if value(forwarding) != "0" || value(rmem) != buffers {
		t.Errorf("after restore: %q %q", value(forwarding), value(rmem))
	}
}

func BenchmarkSteadyPlan(b *testing.B) {
	keys := []string{"net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.lo.rp_filter", "net.ipv4.tcp_rmem"}
	var want []Setting
	for _, k := range keys {
		v, err := readValue(key(k).path("/proc/sys"))
		if err != nil {
			b.Skip(err)
		}
		want = append(want, Setting{Key: k, Value: v})
	}
	s := Open("/proc/sys", filepath.Join(b.TempDir(), "sysctl.json"), slog.New(slog.DiscardHandler))
	for b.Loop() {
		if made, err := s.Plan(want); err != nil || len(made) != 0 {
			b.Fatal(made, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(want)), "ns/key")
}
