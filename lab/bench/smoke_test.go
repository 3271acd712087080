package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/egret-router/egret/lab"
)

// TestSmoke measures plain forwarding in a VM, and that the figures are what
// one such hop costs. It boots a guest, so it runs on the host only.
func TestSmoke(t *testing.T) {
	if os.Getenv("EGRET_VM") == "1" {
		t.Skip("this is a guest")
	}
	lab.Require(t, lab.QEMU)
	if testing.Short() {
		t.Skip("boots a guest")
	}
	// The guest shares the directories of programs only if they are in /tmp.
	dir := t.TempDir()
	bench, vmrun := filepath.Join(dir, "bench"), filepath.Join(dir, "vmrun")
	for binary, source := range map[string]string{bench: ".", vmrun: "../vmrun"} {
		build := exec.Command("go", "build", "-o", binary, source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	cases := allCases(false)[:1]
	ask := guestOptions{Cases: append([]benchCase{generatorCase, wireCase}, cases...), Packets: 640, Rounds: 1}
	all, err := options{vmrun: vmrun}.boot(t.Context(), bench, ask, "-icount")
	if err != nil {
		t.Fatal(err)
	}
	r, err := newReport(cases, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.find(plainName).Figures {
		t.Logf("%s %s: %.0f instructions", f.Family, f.Direction, f.Instructions)
		if f.Instructions < 3000 || f.Instructions > 15_000 || f.Lost != 0 {
			t.Errorf("%s %s: %.0f instructions per packet, %d lost", f.Family, f.Direction, f.Instructions, f.Lost)
		}
	}
}
