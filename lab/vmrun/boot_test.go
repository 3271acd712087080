package main_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
)

// TestBoot boots guests, so it runs on the host only: a guest in a guest would
// take minutes.
func TestBoot(t *testing.T) {
	if os.Getenv("EGRET_VM") == "1" {
		t.Skip("this is a guest")
	}
	lab.Require(t, lab.QEMU)
	if testing.Short() {
		t.Skip("boots guests")
	}
	runner := filepath.Join(t.TempDir(), "vmrun")
	build := exec.Command("go", "build", "-o", runner, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	t.Run("program", func(t *testing.T) { testProgram(t, runner) })
	t.Run("batch", func(t *testing.T) { testBatch(t, runner) })
	t.Run("hostPort", func(t *testing.T) { testHostPort(t, runner) })
	t.Run("panic", func(t *testing.T) {
		code, _, stderr := runVM(t, runner, nil, "sh", "-c", "echo c > /proc/sysrq-trigger")
		if code != 125 || !strings.Contains(stderr, "Kernel panic") {
			t.Errorf("exit code %d, standard error:\n%s", code, stderr)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		code, _, stderr := runVM(t, runner, []string{"EGRET_VM_TIMEOUT=1s"}, "sleep", "1000")
		if code != 125 || !strings.Contains(stderr, "timeout of 1s") {
			t.Errorf("exit code %d, standard error:\n%s", code, stderr)
		}
	})
	t.Run("console", func(t *testing.T) {
		code, stdout, _ := runVM(t, runner, nil, "-shell", "sh", "-c", "tty; exit 5")
		if code != 5 || !strings.Contains(stdout, "/dev/ttyS0") {
			t.Errorf("exit code %d, console:\n%s", code, stdout)
		}
	})
}

// runVM runs the runner with its cache in a directory of the test's own, so
// that it is built as well.
func runVM(t *testing.T, runner string, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(runner, args...)
	cmd.Env = append(append(os.Environ(), "XDG_CACHE_HOME="+filepath.Dir(runner)), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func testProgram(t *testing.T, runner string) {
	dir := t.TempDir()
	// A file in the shared directory survives, one elsewhere does not reach the host.
	script := `cd "$1"; echo kept > kept; pwd; echo lost > /lost-by-vmrun
ip link add red type vrf table 5 && echo has vrf; echo "$EGRET_VM $EGRET_LAB_REQUIRE $EGRET_TEST $SECRET"; echo complaint >&2; exit 7`
	code, stdout, stderr := runVM(t, runner, []string{"EGRET_TEST=passed", "SECRET=s", "EGRET_LAB_REQUIRE="}, "-rw", dir, "sh", "-c", script, "sh", dir)
	if want := dir + "\nhas vrf\n1  passed \n"; code != 7 || stdout != want || stderr != "complaint\n" {
		t.Errorf("exit code %d, standard output %q, want %q, standard error %q", code, stdout, want, stderr)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "kept")); err != nil || string(text) != "kept\n" {
		t.Errorf("the shared file is %q, %v", text, err)
	}
	if _, err := os.Stat("/lost-by-vmrun"); err == nil {
		t.Error("the guest has written to the host's root")
	}
}

func testBatch(t *testing.T, runner string) {
	batch := filepath.Join(t.TempDir(), "batch")
	text := "/ sh -c 'echo first; sleep 1000 >/dev/null 2>&1 &'\n/usr sh -c 'pwd; exit 3'\n/ sh -c 'pgrep -x sleep || echo clean'\n"
	if err := os.WriteFile(batch, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runVM(t, runner, nil, "-batch", batch)
	if code != 1 || stdout != "first\n/usr\nclean\n" {
		t.Errorf("exit code %d, standard output %q", code, stdout)
	}
	for _, say := range []string{"--- vmrun / sh: exit code 0", "--- vmrun /usr sh: exit code 3", "left behind: sleep 1000"} {
		if !strings.Contains(stderr, say) {
			t.Errorf("no %q in standard error:\n%s", say, stderr)
		}
	}
}

// testHostPort has a guest talk to a server on the loopback of this machine, by
// two connections at once, and find another port closed to it.
func testHostPort(t *testing.T, runner string) {
	serve := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					line, _ := bufio.NewReader(c).ReadString('\n')
					fmt.Fprint(c, "you said ", line)
					c.Close()
				}()
			}
		}()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		return port
	}
	open, closed := serve(), serve()
	script := `exec 5<>/dev/tcp/10.0.2.100/$1 6<>/dev/tcp/10.0.2.100/$1; echo a >&6; cat <&6; echo b >&5; cat <&5
timeout 10 bash -c "exec 7<>/dev/tcp/10.0.2.100/$2" 2>/dev/null || echo closed`
	code, stdout, stderr := runVM(t, runner, nil, "-host-port", open, "bash", "-c", script, "bash", open, closed)
	if want := "you said a\nyou said b\nclosed\n"; code != 0 || stdout != want {
		t.Errorf("exit code %d, standard output %q, want %q, standard error %q", code, stdout, want, stderr)
	}
}
