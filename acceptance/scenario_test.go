package acceptance

import (
	"testing"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/scenario"
)

// TestScenarios runs what is told best as a text; see lab/scenario for the
// commands.
func TestScenarios(t *testing.T) {
	lab.Require(t, lab.Root, lab.VRF, lab.Nft, lab.FRR, lab.BIRD)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	scenario.Run(t, "testdata/*.txtar", scenario.Options{Egret: path, Deadline: patience})
}
