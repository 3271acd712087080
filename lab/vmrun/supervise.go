package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// superviseGuest runs the job's programs in the prepared guest.
func superviseGuest(host string) {
	frames, err := openFrames()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmrun:", err)
		os.Exit(1)
	}
	notes := frames.stream(frameStderr)
	j, err := readJob(host)
	if err == nil {
		err = settleGuest(j, notes)
	}
	if err != nil {
		fmt.Fprintln(notes, "vmrun: prepare guest:", err)
		os.Exit(1)
	}
	if j.Verbose {
		fmt.Fprintf(notes, "vmrun: ready %.1f s after the start\n", time.Since(j.Started).Seconds())
	}
	for i, p := range j.Programs {
		began := time.Now()
		if j.Batch {
			fmt.Fprintf(notes, "=== vmrun %s %s\n", p.Dir, filepath.Base(p.Path))
		}
		code := runProgram(p, j, frames)
		if err := sweep(notes); err != nil {
			fmt.Fprintln(notes, "vmrun: sweep:", err)
		}
		if j.Batch {
			fmt.Fprintf(notes, "--- vmrun %s %s: exit code %d after %.1f s\n", p.Dir, filepath.Base(p.Path), code, time.Since(began).Seconds())
		}
		if err := frames.exit(i, code); err != nil {
			os.Exit(1)
		}
	}
	unix.Sync()
	if err := frames.write(frameDone, nil); err != nil {
		os.Exit(1)
	}
}

// openFrames finds the virtio port by its name.
func openFrames() (*frameWriter, error) {
	for range 250 {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil || strings.TrimSpace(string(text)) != portName {
				continue
			}
			f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_WRONLY, 0)
			if err != nil {
				return nil, err
			}
			return &frameWriter{w: f}, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, fmt.Errorf("no virtio port %q", portName)
}

// backlog is how many packets may wait for a processor at the ends of veth pairs.
// With the kernel's 1000, of all namespaces together, an emulated processor that is
// busy for a second drops packets, which no test expects of a network.
const backlog = "100000"

// settleGuest does what an init system does once the root is there.
func settleGuest(j *job, notes io.Writer) error {
	if err := os.WriteFile("/proc/sys/net/core/netdev_max_backlog", []byte(backlog), 0o644); err != nil {
		return fmt.Errorf("deepen backlog: %w", err)
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(target, "/dev/"+name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := os.Mkdir("/run/lock", 0o1777); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("egret-vm")); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	// Every controller that containers need is offered to sub-groups.
	if text, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		var enable []string
		for c := range strings.FieldsSeq(string(text)) {
			enable = append(enable, "+"+c)
		}
		_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte(strings.Join(enable, " ")), 0)
	}
	if j.Network {
		if err := networkUp(); err != nil {
			return err
		}
	}
	if len(j.Modules) == 0 {
		return nil
	}
	// What a kernel does not have, a test that needs it reports better.
	out, err := exec.Command("/sbin/modprobe", append([]string{"-a"}, j.Modules...)...).CombinedOutput()
	if err != nil {
		fmt.Fprintf(notes, "vmrun: load modules: %v: %s\n", err, out)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// runProgram runs one program and returns its exit code, 128 + signal if it
// was killed, or 127 if it could not be started.
func runProgram(p program, j *job, frames *frameWriter) int {
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir, cmd.Env = p.Dir, append(j.Env, "PWD="+p.Dir)
	cmd.Stdout, cmd.Stderr = frames.stream(frameStdout), frames.stream(frameStderr)
	// A daemon which the program left behind may hold its output open.
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if j.Shell {
		console, err := openConsole(j)
		if err != nil {
			fmt.Fprintln(cmd.Stderr, "vmrun:", err)
			return 127
		}
		defer console.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
		cmd.SysProcAttr.Setctty = true
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(cmd.Stderr, "vmrun: start program:", err)
		return 127
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

// openConsole opens the serial console as a terminal.
func openConsole(j *job) (*os.File, error) {
	f, err := os.OpenFile("/dev/ttyS0", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if j.Rows != 0 {
		err = unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: j.Rows, Col: j.Columns})
	}
	return f, err
}

// sweep ends every process that a program left behind, so that the next one of
// a batch starts in a clean guest, and says so.
func sweep(notes io.Writer) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(text) == 0 {
			continue // gone, or a thread of the kernel
		}
		fmt.Fprintf(notes, "vmrun: killing process %d that was left behind: %s\n", pid, strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " "))
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return nil
}
