package sysctl

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestCorruptRecords(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"torn":          `{"version":1,"values":[{"key":"net.ipv4.ip_fo`,
		"version":       `{"version":2,"values":[]}`,
		"unknown field": `{"version":1,"values":[],"extra":1}`,
		"trailing":      `{"version":1,"values":[]} {}`,
		"outside":       `{"version":1,"values":[{"key":"../../etc/passwd","original":"0"}]}`,
		"path form":     `{"version":1,"values":[{"key":"net/ipv4/ip_forward","original":"0"}]}`,
		"twice":         `{"version":1,"values":[{"key":"a.b","original":"0"},{"key":"a.b","original":"1"}]}`,
		"two lines":     `{"version":1,"values":[{"key":"a.b","original":"0\n1"}]}`,
		"huge":          strings.Repeat(" ", maxRecord+1),
	} {
		t.Run(name, func(t *testing.T) {
			tr := forwardTree(t)
			if err := os.MkdirAll(filepath.Dir(tr.record), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(tr.record, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := tr.open()
			if changes, err := s.Plan(forward); !errors.Is(err, errCorrupt) || len(changes) != 2 {
				t.Errorf("plan: %v, %v", changes, err)
			}
			if err := s.Restore(t.Context()); !errors.Is(err, errCorrupt) {
				t.Errorf("restore: %v", err)
			}
			if b, err := os.ReadFile(tr.record); err != nil || string(b) != text {
				t.Errorf("plan or restore touched the record: %v", err)
			}

			made, err := s.Set(t.Context(), forward)
			if !errors.Is(err, errCorrupt) || len(made) != 2 {
				t.Errorf("set: %v, %v", made, err)
			}
			if b, err := os.ReadFile(tr.record + ".corrupt"); err != nil || string(b) != text {
				t.Errorf("the corrupt record was not kept: %v", err)
			}
			if !strings.Contains(tr.log.String(), "level=ERROR") {
				t.Errorf("not logged: %s", &tr.log)
			}
			if made, err := s.Set(t.Context(), forward); err != nil || len(made) != 0 {
				t.Errorf("second set: %v, %v", made, err)
			}
			// What we changed since is restored, and the loss is told again.
			if err := s.Restore(t.Context()); !errors.Is(err, errCorrupt) {
				t.Errorf("restore: %v", err)
			}
			tr.expect("net.ipv4.ip_forward", "0")
			tr.noRecord()
		})
	}
}

func TestSecondCorruptRecordKeepsTheFirst(t *testing.T) {
	tr := forwardTree(t)
	for _, text := range []string{"first", "second"} {
		if err := os.MkdirAll(filepath.Dir(tr.record), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(tr.record, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.open().Set(t.Context(), forward); !errors.Is(err, errCorrupt) {
			t.Errorf("set: %v", err)
		}
	}
	for suffix, want := range map[string]string{".corrupt": "first", ".corrupt.2": "second"} {
		if b, err := os.ReadFile(tr.record + suffix); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", suffix, b, err)
		}
	}
}

func TestUnreadableRecordChangesNothing(t *testing.T) {
	tr := forwardTree(t)
	if err := os.MkdirAll(tr.record, 0o755); err != nil { // a directory in its place
		t.Fatal(err)
	}
	if made, err := tr.open().Set(t.Context(), forward); err == nil || len(made) != 0 {
		t.Errorf("set: %v, %v", made, err)
	}
	tr.expect("net.ipv4.ip_forward", "0")
}

// Names of the environment of the process that TestKill kills.
const (
	killAt   = "EGRET_SYSCTL_TEST_KILL_AT"
	killRoot = "EGRET_SYSCTL_TEST_ROOT"
	killRec  = "EGRET_SYSCTL_TEST_RECORD"
)

// TestKill ends a process with SIGKILL before and after each write of a Set:
// whatever the moment, a new process finds every original.
func TestKill(t *testing.T) {
	if os.Getenv(killAt) != "" {
		killedSet(t)
		return
	}
	for _, at := range []string{"before-1", "after-1", "before-2", "after-2"} {
		for _, then := range []string{"restore", "set"} {
			t.Run(at+"/"+then, func(t *testing.T) {
				tr := forwardTree(t)
				cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
				cmd.Env = append(os.Environ(), killAt+"="+at, killRoot+"="+tr.root, killRec+"="+tr.record)
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("the process was not killed: %v\n%s", err, out)
				}
				want := []entry{{"net.ipv4.conf.all.rp_filter", "2"}, {"net.ipv4.ip_forward", "0"}}
				if got := tr.originals(); !slices.Equal(got, want) {
					t.Errorf("recorded %v, want %v", got, want)
				}
				s := tr.open()
				if then == "set" {
					if _, err := s.Set(t.Context(), forward); err != nil {
						t.Fatal(err)
					}
					tr.expect("net.ipv4.ip_forward", "1")
				}
				if err := s.Restore(t.Context()); err != nil {
					t.Fatal(err)
				}
				tr.expect("net.ipv4.conf.all.rp_filter", "2")
				tr.expect("net.ipv4.ip_forward", "0")
				tr.noRecord()
			})
		}
	}
}

func killedSet(t *testing.T) {
	s := (&tree{t: t, root: os.Getenv(killRoot), record: os.Getenv(killRec)}).open()
	n := 0
	s.write = func(path, value string) error {
		n++
		die := func(moment string) {
			if os.Getenv(killAt) == moment+"-"+string(rune('0'+n)) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		die("before")
		err := writeValue(path, value)
		die("after")
		return err
	}
	_, err := s.Set(t.Context(), forward)
	t.Fatalf("not killed: %v", err)
}
