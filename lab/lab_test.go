package lab_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

const deadline = 30 * time.Second

func TestNamespacesAreSeparate(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t)
	a, b := l.MustNamespace("a"), l.MustNamespace("b")
	l.MustLink(a, "eth0", b, "eth0")
	a.MustIP("addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad")
	b.MustIP("addr add 192.0.2.2/24 dev eth0", "addr add 2001:db8::2/64 dev eth0 nodad")
	for _, address := range []string{"192.0.2.2:7000", "[2001:db8::2]:7000"} {
		if err := exchange(a, b, address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	a.Must("sh", "-c", "echo private > /run/witness; test -d /sys/class/net/eth0")
	if text, err := os.ReadFile(a.Path("/run/witness")); err != nil || string(text) != "private\n" {
		t.Errorf("the file in /run is %q, %v", text, err)
	}
	enter := a.EnterCommand("cat", "/run/witness", "/sys/class/net/eth0/operstate")
	if out, err := exec.CommandContext(t.Context(), enter[0], enter[1:]...).CombinedOutput(); err != nil || string(out) != "private\nup\n" {
		t.Errorf("%q: %q, %v", enter, out, err)
	}
	if out, err := b.Run("cat", "/run/witness"); err == nil {
		t.Errorf("the other namespace sees %q in /run", out)
	}
	if err := a.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	for ns, want := range map[*lab.NS]string{a: "1", b: "0"} {
		if err := b.Sysctl("net.ipv4.conf.eth0.forwarding", "0"); err != nil {
			t.Fatal(err)
		}
		if got, err := ns.ReadSysctl("net.ipv4.conf.eth0.forwarding"); err != nil || got != want {
			t.Errorf("forwarding of %s = %q, %v, want %q", ns.Name, got, err, want)
		}
	}
}

// exchange connects from one namespace to a listener in the other.
func exchange(from, to *lab.NS, address string) error {
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	accepted := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err == nil {
			err = c.Close()
		}
		accepted <- err
	}()
	err = from.Do(func() error {
		fd, err := dialTCP(address)
		if err != nil {
			return err
		}
		return syscall.Close(fd)
	})
	return errors.Join(err, <-accepted)
}

// dialTCP connects on the calling thread.
func dialTCP(address string) (int, error) {
	to, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return -1, err
	}
	if v4 := to.IP.To4(); v4 != nil {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			return -1, err
		}
		return fd, syscall.Connect(fd, &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(v4)})
	}
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	return fd, syscall.Connect(fd, &syscall.SockaddrInet6{Port: to.Port, Addr: [16]byte(to.IP)})
}

func TestProcesses(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t)
	ns := l.MustNamespace("a")

	p := ns.MustStart("talker", "sh", "-c", "echo to-stdout; echo to-stderr >&2; exec sleep 1000")
	for _, text := range []string{"to-stdout", "to-stderr"} {
		if err := p.WaitFor(t.Context(), deadline, text); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.Stdout() + p.Stderr(); got != "to-stdout\nto-stderr\n" {
		t.Errorf("output %q", got)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, deadline, "paused process", func() error { return inState(p, "T") })
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, deadline, "resumed process", func() error { return inState(p, "S") })
	if err := p.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if p.Running() {
		t.Error("runs after Stop")
	}
	failing := ns.MustStart("failing", "sh", "-c", "exit 7")
	if err := failing.Wait(t.Context()); err == nil || failing.ExitCode() != 7 {
		t.Errorf("wait = %v, exit code %d", err, failing.ExitCode())
	}
	if err := failing.WaitFor(t.Context(), deadline, "never written"); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("waiting for a process that has ended: %v", err)
	}
	killed := ns.MustStart("killed", "sleep", "1000")
	killed.Kill9()
	if killed.Running() || killed.ExitCode() != -1 {
		t.Errorf("after Kill9: running %t, exit code %d", killed.Running(), killed.ExitCode())
	}
	if _, err := ns.Run("sh", "-c", "echo because >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "because") {
		t.Errorf("the error of Run is %v", err)
	}
}

func inState(p *lab.Proc, want string) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return err
	}
	if got := strings.Fields(string(text))[2]; got != want {
		return fmt.Errorf("state %s", got)
	}
	return nil
}

func TestCloseLeavesNothing(t *testing.T) {
	lab.Require(t, lab.Root)
	l, err := lab.Start(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ns, err := l.Namespace("a")
	if err != nil {
		t.Fatal(err)
	}
	// A daemon leaves its process group and its parent.
	out, err := ns.Run("sh", "-c", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	daemon := strings.TrimSpace(out)
	named := "/run/netns/" + ns.FullName()
	if _, err := os.Stat(named); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	for _, path := range []string{named, l.Dir} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q after Close: %v", path, err)
		}
	}
	lab.Eventually(t, deadline, "end of the daemon", func() error {
		stat, err := os.ReadFile("/proc/" + daemon + "/stat")
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			return errors.New("it lives")
		}
		return nil
	})
}

func TestPollReportsTheLastError(t *testing.T) {
	calls := 0
	err := lab.Poll(t.Context(), time.Millisecond, "the impossible", func() error {
		calls++
		return fmt.Errorf("attempt %d", calls)
	})
	if err == nil || !strings.Contains(err.Error(), "the impossible") || !strings.Contains(err.Error(), fmt.Sprint("attempt ", calls)) {
		t.Errorf("error %v", err)
	}
	cause := errors.New("cause")
	if err := lab.Poll(t.Context(), deadline, "it", func() error { return lab.Final(cause) }); !errors.Is(err, cause) {
		t.Errorf("final error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := lab.Poll(ctx, deadline, "it", func() error { return nil }); err != nil {
		t.Errorf("a check that succeeds at once: %v", err)
	}
}

func TestVRF(t *testing.T) {
	lab.Require(t, lab.VRF, lab.Dummy, lab.VLAN, lab.Nft, lab.Flowtable, lab.Conntrack, lab.Netem)
	l := lab.New(t)
	ns := l.MustNamespace("a")
	ns.MustIP("link add red type vrf table 100", "link set red up", "link add d0 type dummy", "link set d0 master red up")
	if out := ns.Must("ip", "rule", "list"); !strings.Contains(out, "l3mdev-table") {
		t.Errorf("rules without that of VRFs: %s", out)
	}
}
