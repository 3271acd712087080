package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An NS is a network namespace with a mount namespace, in which /run is
// private and /sys shows this network.
type NS struct {
	// Name is unique within the lab; in /run/netns it is Lab.ID-Name.
	Name string

	lab    *Lab
	dir    string
	net    *os.File
	mnt    *os.File
	starts chan func() // executed on the thread that lives in the namespace
}

// Namespace adds an empty namespace with lo up. Duplicate address detection is
// off, so that IPv6 addresses are usable soon; those that are used at once also
// need the word nodad in `ip addr add`, or a kernel thread comes too late.
func (l *Lab) Namespace(name string) (*NS, error) {
	ns := &NS{Name: name, lab: l, dir: filepath.Join(l.Dir, name), starts: make(chan func())}
	if err := ns.create(); err != nil {
		return nil, fmt.Errorf("create namespace %q: %w", name, errors.Join(err, ns.close()))
	}
	l.mu.Lock()
	l.spaces = append(l.spaces, ns)
	l.mu.Unlock()
	return ns, ns.settle()
}

// MustNamespace is Namespace for tests.
func (l *Lab) MustNamespace(name string) *NS {
	l.helper()
	ns, err := l.Namespace(name)
	l.check(err)
	return ns
}

func (l *Lab) helper() {
	if l.tb != nil {
		l.tb.Helper()
	}
}

// check ends the test, or panics where there is none.
func (l *Lab) check(err error) {
	l.helper()
	if err == nil {
		return
	}
	if l.tb == nil {
		panic(err)
	}
	l.tb.Fatal(err)
}

func (ns *NS) create() error {
	if err := os.MkdirAll(filepath.Join(ns.dir, "run"), 0o755); err != nil {
		return err
	}
	ready := make(chan error)
	go ns.live(ready)
	if err := <-ready; err != nil {
		return err
	}
	// `ip -n` and `ip netns exec` find the namespace by this name.
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(ns.netnsPath(), nil, 0o444); err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.net.Fd()), ns.netnsPath(), "", unix.MS_BIND, "")
}

// live runs on the thread that is in the namespaces as long as the lab exists.
// Processes are started by it, because they inherit the namespaces of the
// thread that forks, and because the kernel kills them when that thread ends:
// nothing outlives a test binary that is killed.
func (ns *NS) live(ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with this function
	if err := ns.enter(); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for start := range ns.starts {
		start()
	}
}

func (ns *NS) enter() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(filepath.Join(ns.dir, "run"), "/run", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount private /run: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	var err error
	if ns.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	ns.mnt, err = os.Open("/proc/thread-self/ns/mnt")
	return err
}

func (ns *NS) settle() error {
	if _, err := ns.Run("ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	for _, key := range []string{"all", "default"} {
		if err := ns.Sysctl("net.ipv6.conf."+key+".accept_dad", "0"); err != nil {
			return err
		}
		// A lab's routers send no advertisements unless a test makes them.
		if err := ns.Sysctl("net.ipv6.conf."+key+".router_solicitations", "0"); err != nil {
			return err
		}
	}
	return nil
}

// FullName is the namespace's name for ip(8).
func (ns *NS) FullName() string { return ns.lab.ID + "-" + ns.Name }

func (ns *NS) netnsPath() string { return filepath.Join(netnsDir, ns.FullName()) }

// Path tells where a file in the namespace's private /run, like
// "/run/egret/egret.sock", is seen by everybody else. Other paths are the same.
func (ns *NS) Path(path string) string {
	if path == "/run" || strings.HasPrefix(path, "/run/") {
		return ns.dir + path
	}
	return path
}

// EnterCommand returns the words that run a program in the namespace, with its
// private /run, from outside: for a person's shell. They work while this process lives.
func (ns *NS) EnterCommand(args ...string) []string {
	fd := func(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }
	return append([]string{"nsenter", "--net=" + fd(ns.net), "--mount=" + fd(ns.mnt), "--"}, args...)
}

// Do calls f on a thread of its own in the network namespace (the mount
// namespace stays, so /run is the machine's). Sockets that f opens stay in the namespace, goroutines that it starts
// do not run in it.
func (ns *NS) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		if err := unix.Setns(int(ns.net.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %q: %w", ns.Name, err)
			return
		}
		finished := false
		defer func() {
			if !finished { // f called runtime.Goexit, as t.Fatal does
				done <- fmt.Errorf("function in namespace %q did not return", ns.Name)
			}
		}()
		err := f()
		finished = true
		done <- err
	}()
	return <-done
}

// Sysctl sets a kernel setting of the namespace. The key has dots, or slashes
// if an interface's name has dots.
func (ns *NS) Sysctl(key, value string) error {
	err := ns.Do(func() error { return os.WriteFile(sysctlPath(key), []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("set sysctl %q in %q: %w", key, ns.Name, err)
	}
	return nil
}

// ReadSysctl returns a kernel setting of the namespace without its newline.
func (ns *NS) ReadSysctl(key string) (string, error) {
	var text []byte
	err := ns.Do(func() (err error) {
		text, err = os.ReadFile(sysctlPath(key))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read sysctl %q in %q: %w", key, ns.Name, err)
	}
	return strings.TrimSpace(string(text)), nil
}

func sysctlPath(key string) string {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	return "/proc/sys/" + key
}

// close ends the processes in the namespace and deletes it.
func (ns *NS) close() error {
	var errs []error
	if ns.net != nil {
		errs = append(errs, ns.killAll())
		close(ns.starts)
	}
	if _, err := os.Stat(ns.netnsPath()); err == nil {
		_ = unix.Unmount(ns.netnsPath(), unix.MNT_DETACH) // not mounted if create failed half-way
		errs = append(errs, os.Remove(ns.netnsPath()))
	}
	for _, f := range []*os.File{ns.net, ns.mnt} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// killAll kills every process of the namespace, also daemons that left their
// process group. New ones may appear while it looks, so it looks again.
func (ns *NS) killAll() error {
	for range 20 {
		pids, err := ns.pids()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}

// pids lists the live processes whose network namespace is this one.
func (ns *NS) pids() ([]int, error) {
	var own unix.Stat_t
	if err := unix.Fstat(int(ns.net.Fd()), &own); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join("/proc", e.Name(), "ns/net"), &st) == nil && st.Ino == own.Ino && st.Dev == own.Dev {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
