package scenario_test

import (
	"testing"

	"github.com/egret-router/egret/lab/scenario"
)

func TestScenarios(t *testing.T) {
	scenario.Run(t, "testdata/*.txtar", scenario.Options{})
}
