package nat

import (
	"strings"
	"testing"
)

// TestSilent: for clients behind tunnels nothing is rejected before it is routed,
// and what was rejected is dropped.
func TestSilent(t *testing.T) {
	rejects := func(silent bool) (n, drops int) {
		for _, chain := range Render(Config{Silent: silent}).Chains {
			for _, line := range chain.Lines {
				n += strings.Count(line.Text, "reject with")
				drops += strings.Count(line.Text, " drop")
			}
		}
		return n, drops
	}
	loud, before := rejects(false)
	quiet, after := rejects(true)
	if loud == 0 || quiet != 0 || after != before+loud {
		t.Errorf("%d rejects and %d drops, silent %d and %d", loud, before, quiet, after)
	}
}
