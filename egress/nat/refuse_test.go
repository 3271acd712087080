package nat

import (
	"net/netip"
	"testing"
)

// An exit that takes no new flows discards or refuses the first packet of one.
// (What it spares is for the kernel to tell: see refuseTraffic.)
func TestClassifyRefused(t *testing.T) {
	r := Render(actionsConfig())
	for dst, want := range map[string]Decision{"198.18.0.1": Dropped, "198.19.0.1": Rejected, "fd00:18::1": Dropped} {
		src := netip.MustParseAddr("10.244.0.7")
		if netip.MustParseAddr(dst).Is6() {
			src = netip.MustParseAddr("fd00:244::7")
		}
		trace, err := r.Classify(src, netip.MustParseAddr(dst))
		if err != nil || trace.Decision != want || trace.Zone != 0 {
			t.Errorf("%s: %+v, %v, want %s", dst, trace, err, want)
		}
	}
	for _, name := range []string{"red.drained", "red.closing"} {
		if _, ok := r.Chains["exit_"+name]; !ok {
			t.Errorf("no exit %s", name)
		}
	}
	if marks := r.Sets["guard_marks_red"].Elements; len(marks) != 4 {
		t.Errorf("the guards let the marks %v pass: established flows need those of all exits", marks)
	}
}
