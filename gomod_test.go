package egret_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// floors are the oldest versions without a known vulnerability that concerns
// us. Modules that the build does not need are not in go.mod and pass.
var floors = map[string]string{
	"google.golang.org/grpc":     "v1.82.1",
	"google.golang.org/protobuf": "v1.33.0",
	"golang.org/x/net":           "v0.56.0",
	"golang.org/x/crypto":        "v0.52.0",
	"github.com/cilium/ebpf":     "v0.22.0",
}

// goFloor is the oldest Go whose standard library has no known vulnerability.
const goFloor = "1.26.6"

// needed must be in go.mod: else the floors are not looking at what we build.
var needed = []string{"google.golang.org/grpc", "google.golang.org/protobuf", "golang.org/x/net"}

func TestModuleFloors(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range floorProblems(t, text) {
		t.Error(problem)
	}
}

// floorProblems relies on go.mod naming every module that the build needs with
// the version that is built, as it does since Go 1.17.
func floorProblems(t *testing.T, text []byte) []string {
	t.Helper()
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	seen := map[string]bool{}
	for _, r := range mod.Require {
		seen[r.Mod.Path] = true
		if floor, ok := floors[r.Mod.Path]; ok && semver.Compare(r.Mod.Version, floor) < 0 {
			list = append(list, fmt.Sprintf("%s %s is older than %s", r.Mod.Path, r.Mod.Version, floor))
		}
	}
	for _, name := range needed {
		if !seen[name] {
			list = append(list, name+" is not required at all")
		}
	}
	for _, r := range mod.Replace {
		list = append(list, fmt.Sprintf("%s is replaced, which hides its version", r.Old.Path))
	}
	if mod.Go == nil || semver.Compare("v"+mod.Go.Version, "v"+goFloor) < 0 {
		list = append(list, "the go line is older than "+goFloor)
	}
	if mod.Toolchain != nil && semver.Compare("v"+strings.TrimPrefix(mod.Toolchain.Name, "go"), "v"+goFloor) < 0 {
		list = append(list, "the toolchain line is older than "+goFloor)
	}
	return list
}

func TestModuleFloorsFindEverything(t *testing.T) {
	const good = "module m\ngo 1.26.6\nrequire (\n google.golang.org/grpc v1.82.1\n google.golang.org/protobuf v1.36.0\n golang.org/x/net v0.56.0\n)\n"
	if got := floorProblems(t, []byte(good)); len(got) != 0 {
		t.Errorf("unexpected %q", got)
	}
	for _, c := range []struct{ from, to, want string }{
		{"grpc v1.82.1", "grpc v1.82.0", "grpc v1.82.0 is older than v1.82.1"},
		{"net v0.56.0", "net v0.9.0", "x/net v0.9.0 is older"},
		{" golang.org/x/net v0.56.0\n", "", "x/net is not required at all"},
		{"\n)", "\n golang.org/x/crypto v0.51.9\n)", "x/crypto v0.51.9 is older"},
		{"go 1.26.6", "go 1.26.0", "the go line is older"},
		{"go 1.26.6", "go 1.26.6\ntoolchain go1.26.5", "the toolchain line is older"},
		{"\n)\n", "\n)\nreplace golang.org/x/net => ../net\n", "x/net is replaced"},
	} {
		got := floorProblems(t, []byte(strings.Replace(good, c.from, c.to, 1)))
		if len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%q instead of %q: got %q, want one problem with %q", c.to, c.from, got, c.want)
		}
	}
}
