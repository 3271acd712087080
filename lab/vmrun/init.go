package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// superviseArg makes this program, within the guest, run the job's programs.
// The first process only mounts, starts the supervisor and reaps orphans: a
// reaper in the supervisor would take away the results of its own children.
const superviseArg = "-guest-supervisor"

const (
	lowerDir = "/mnt/lower" // the host's root, in the initramfs
	rootDir  = "/mnt/root"  // the overlay, before it becomes /
	hostDir  = "/run/vmrun/host"
	nineP    = "trans=virtio,version=9p2000.L,msize=512000"
)

// bootGuest is the first process of the guest. It never returns: a failure
// powers the guest off without a result, and its text is on the console.
func bootGuest() {
	defer powerOff()
	// With the shared read-write directories mounted, the write-back caches must not be lost.
	defer unix.Sync()
	if err := prepareGuest(); err != nil {
		fmt.Fprintln(os.Stderr, "vmrun: prepare guest:", err)
		return
	}
	if err := runSupervisor(); err != nil {
		fmt.Fprintln(os.Stderr, "vmrun: supervisor:", err)
	}
}

func powerOff() {
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "vmrun: power off:", err)
	}
	select {}
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %q: %w", m.kind, m.target, err)
	}
	return nil
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

func prepareGuest() error {
	early := []mount{
		{"proc", "/proc", "proc", 0, ""},
		{"sys", "/sys", "sysfs", 0, ""},
		{"dev", "/dev", "devtmpfs", 0, ""},
	}
	if err := mountAll(early); err != nil {
		return err
	}
	if err := insertModules("/modules"); err != nil {
		return err
	}
	if err := mountRetry(mount{"host", lowerDir, "9p", unix.MS_RDONLY, nineP + ",cache=loose"}); err != nil {
		return err
	}
	j, err := readJob(lowerDir)
	if err != nil {
		return err
	}
	if err := (mount{"tmpfs", "/mnt/rw", "tmpfs", 0, ""}).do(); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir("/mnt/rw/upper", 0o755), os.Mkdir("/mnt/rw/work", 0o755)); err != nil {
		return err
	}
	overlay := mount{"root", rootDir, "overlay", 0, "lowerdir=" + lowerDir + ",upperdir=/mnt/rw/upper,workdir=/mnt/rw/work"}
	if err := overlay.do(); err != nil {
		return err
	}
	if err := mountVolatile(); err != nil {
		return err
	}
	if err := mountShares(j.Shares); err != nil {
		return err
	}
	return switchRoot()
}

// mountVolatile gives the new root what must not come from the host.
func mountVolatile() error {
	var mounts []mount
	for _, dir := range volatile {
		mounts = append(mounts, mount{"tmpfs", rootDir + dir, "tmpfs", 0, "mode=1777"})
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		mounts = append(mounts, mount{dir, rootDir + dir, "", unix.MS_MOVE, ""})
	}
	mounts = append(mounts,
		mount{lowerDir, rootDir + hostDir, "", unix.MS_MOVE, ""},
		mount{"pts", rootDir + "/dev/pts", "devpts", 0, "ptmxmode=0666,mode=0620,gid=5"},
		mount{"shm", rootDir + "/dev/shm", "tmpfs", 0, "mode=1777"},
		mount{"cgroup2", rootDir + "/sys/fs/cgroup", "cgroup2", 0, ""},
	)
	if err := mountAll(mounts); err != nil {
		return err
	}
	return os.Chmod(rootDir+"/run", 0o755)
}

// mountShares makes the host's directories writable at their own paths. A
// directory that others may change under us is not cached beyond what mmap
// needs.
func mountShares(shares []share) error {
	for _, s := range shares {
		cache := ",cache=mmap"
		if s.Private {
			cache = ",cache=loose"
		}
		if err := (mount{s.Tag, rootDir + s.Path, "9p", 0, nineP + cache}).do(); err != nil {
			return err
		}
	}
	return nil
}

// switchRoot makes the overlay the root, as switch_root(8) does. The kernel's
// own threads share this process's root, so that modprobe works as well.
func switchRoot() error {
	if err := os.Chdir(rootDir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	// Private propagation would let a namespace's mounts be invisible to `ip netns`; shared is what init systems set.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return os.Chdir("/")
}

// mountRetry waits for the device, which the bus may find a moment later.
func mountRetry(m mount) error {
	var err error
	for range 100 {
		if err = m.do(); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// insertModules inserts all modules of a directory in the order of their names.
func insertModules(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		module, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if err := unix.InitModule(module, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("insert module %q: %w", e.Name(), err)
		}
	}
	return nil
}

// readJob finds the job which the kernel's command line names.
func readJob(root string) (*job, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	for word := range strings.FieldsSeq(string(line)) {
		if path, ok := strings.CutPrefix(word, jobOption); ok {
			text, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				return nil, fmt.Errorf("read job: %w", err)
			}
			j := new(job)
			return j, json.Unmarshal(text, j)
		}
	}
	return nil, fmt.Errorf("no %s on the kernel's command line", jobOption)
}

// runSupervisor starts the supervisor and reaps every process until it ends.
func runSupervisor() error {
	cmd := exec.Command("/proc/self/exe", superviseArg, hostDir)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case pid == cmd.Process.Pid && status.ExitStatus() != 0:
			return fmt.Errorf("exit status %d, signal %v", status.ExitStatus(), status.Signal())
		case pid == cmd.Process.Pid:
			return nil
		}
	}
}
