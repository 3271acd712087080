package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestImages builds every image from this machine's files and runs its programs
// confined to it: a library or file that was forgotten ends them.
func TestImages(t *testing.T) {
	if os.Getuid() != 0 {
		skipOrFail(t, "chroot needs root")
	}
	for _, needed := range []string{"busybox", "bird", "vtysh", "nft", "ldd"} {
		if _, err := exec.LookPath(needed); err != nil {
			skipOrFail(t, err.Error())
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	// Any program serves as our own here: that it is in its place is what counts.
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string][][]string{
		"host": {{"sh", "-c", "test -x /usr/bin/egretlab && ip link && id"}},
		"gateway": {{"nft", "--version"}, {"ip", "-V"}, {"ping", "-V"}, {"egret"},
			{"sh", "-c", "test -d /etc/egret -a -d /run -a -d /proc"}},
		"frr": {{"/usr/lib/frr/zebra", "--version"}, {"/usr/lib/frr/bgpd", "--version"}, {"vtysh", "--help"},
			{"sh", "-c", "test -x /usr/sbin/frr-start -a -x /usr/bin/egretlab && test \"$(stat -c %U /run/frr)\" = frr && ls /var/run/frr /lib/*/security/pam_permit.so"}},
		"bird": {{"bird", "--version"}, {"birdc", "-h"}, {"sh", "-c", "test -d /run/bird -a -x /usr/bin/egretlab"}},
	}
	for _, i := range images() {
		t.Run(i.name, func(t *testing.T) {
			dir := t.TempDir()
			file := i.tarIn(dir)
			if err := i.build(t.Context(), programs{egret: program, egretlab: program}, file); err != nil {
				t.Fatal(err)
			}
			root := filepath.Join(dir, "root")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("tar", "-xf", file, "-C", root).CombinedOutput(); err != nil {
				t.Fatalf("unpack: %v: %s", err, out)
			}
			if len(commands[i.name]) == 0 {
				t.Fatal("no command to try")
			}
			for _, c := range commands[i.name] {
				cmd := exec.Command("/bin/busybox", append([]string{"env", "-i", "PATH=/usr/sbin:/usr/bin"}, c...)...)
				cmd.Path = busybox
				cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
				cmd.Dir = "/"
				out, err := cmd.CombinedOutput()
				if usageExit := c[0] == "birdc" && strings.Contains(string(out), "Usage"); err != nil && !usageExit {
					t.Errorf("%q: %v: %s", c, err, out)
				}
			}
		})
	}
}

// TestTarIsReproducible builds an image twice.
func TestTarIsReproducible(t *testing.T) {
	build := func() string {
		r := newRootfs()
		r.addContent("etc/x/y", 0o600, "text")
		r.addDir("run/frr", 100)
		if err := r.addFile("/bin/true", "/bin/true"); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := r.writeTar(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	first, second := build(), build()
	if first != second {
		t.Error("two builds of the same files differ")
	}
}

// skipOrFail is for what this machine lacks.
func skipOrFail(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("EGRET_LAB_REQUIRE") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// TestTopologiesUseTheImages compares what is built with what the topologies name.
func TestTopologiesUseTheImages(t *testing.T) {
	files, err := filepath.Glob("../*.clab.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find topologies: %q, %v", files, err)
	}
	used := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "image: "+imagePrefix); ok {
				used[name] = true
			}
		}
	}
	for _, i := range images() {
		if !used[i.name] {
			t.Errorf("no topology uses image %q", i.name)
		}
		delete(used, i.name)
	}
	for name := range used {
		t.Errorf("a topology uses image %q, which is not built", name)
	}
}
