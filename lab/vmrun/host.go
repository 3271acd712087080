package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	qemuProgram = "qemu-system-x86_64"
	jobOption   = "egret.job="
	// powerOffGrace is how long QEMU may take to end after the guest has said that it is done.
	powerOffGrace = 10 * time.Second
	consoleTail   = 60 // lines
)

// boot runs the job in a guest and returns its exit code.
func boot(o options, j *job, img images) (int, error) {
	dir, err := os.MkdirTemp("", "vmrun-")
	if err != nil {
		return exitUsage, err
	}
	defer os.RemoveAll(dir)
	terminal := terminalOf(os.Stdin, j)
	defer terminal.restore()
	text, err := json.Marshal(j)
	if err != nil {
		return exitUsage, err
	}
	jobFile := filepath.Join(dir, "job.json")
	if err := os.WriteFile(jobFile, text, 0o644); err != nil {
		return exitUsage, err
	}
	console := filepath.Join(dir, "console.log")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP)
	defer stop()
	if o.machine.timeout > 0 && !o.shell {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.machine.timeout, fmt.Errorf("timeout of %v", o.machine.timeout))
		defer cancel()
	}
	// A path without characters that QEMU or a shell would take for their own.
	self := filepath.Join(dir, "pipe")
	if exe, err := os.Executable(); err != nil || os.Symlink(exe, self) != nil {
		return exitUsage, fmt.Errorf("find this program: %w", err)
	}
	res, err := qemu(ctx, qemuArgs(o, j, img, jobFile, console, self))
	if code, ok := exitCode(j, res); ok && err == nil {
		return code, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(err, cause)
	}
	if tail := lastLines(console, consoleTail); tail != "" {
		fmt.Fprintf(os.Stderr, "vmrun: the last lines of the guest's console:\n%s\n", tail)
	}
	return exitLost, errors.Join(errors.New("the guest ended without an exit code"), err)
}

// exitCode is the program's own, or that of the batch; false if one is missing.
func exitCode(j *job, res result) (int, bool) {
	if !res.done || len(res.codes) != len(j.Programs) {
		return 0, false
	}
	if !j.Batch {
		return res.codes[0], true
	}
	for _, code := range res.codes {
		if code != 0 {
			return exitFailed, true
		}
	}
	return 0, true
}

func qemuArgs(o options, j *job, img images, jobFile, console, self string) []string {
	cpu := "max"
	if o.machine.accel == "kvm" {
		cpu = "host"
	}
	kernelLine := "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check random.trust_cpu=on " + jobOption + jobFile
	if o.machine.icount {
		// Other clocks cost thousands of instructions for each reading.
		kernelLine = "clocksource=tsc tsc=reliable " + kernelLine
	}
	args := []string{
		"-accel", o.machine.accel, "-cpu", cpu, "-smp", fmt.Sprint(o.machine.cpus), "-m", o.machine.memory, "-M", "q35",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", img.kernel, "-initrd", img.initramfs, "-append", kernelLine,
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=frames,path=/dev/fd/3", "-device", "virtserialport,chardev=frames,name=" + portName,
		"-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
	}
	if o.machine.icount {
		args = append(args, "-icount", "shift=0")
	}
	args = append(args, networkArgs(o.ports, self)...)
	if o.shell {
		args = append(args, "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
	} else {
		args = append(args, "-serial", "file:"+console)
	}
	for _, s := range j.Shares {
		args = append(args, "-virtfs", fmt.Sprintf("local,path=%s,mount_tag=%s,security_model=none,multidevs=remap",
			strings.ReplaceAll(s.Path, ",", ",,"), s.Tag))
	}
	return args
}

// qemu runs QEMU until the guest has ended and copies the programs' output.
func qemu(ctx context.Context, args []string) (result, error) {
	// Pdeathsig refers to the thread that starts the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	read, write, err := os.Pipe()
	if err != nil {
		return result{}, err
	}
	defer read.Close()
	cmd := exec.CommandContext(ctx, qemuProgram, args...)
	var complaints bytes.Buffer
	cmd.Stdin, cmd.Stderr = os.Stdin, &complaints
	if strings.Contains(strings.Join(args, " "), "stdio,id=console") {
		cmd.Stdout = os.Stdout
	} else {
		cmd.Stdin = nil
	}
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return result{}, fmt.Errorf("start %s: %w", qemuProgram, err)
	}
	res, readErr := readFrames(read, os.Stdout, os.Stderr)
	// Whatever QEMU still writes must not block it.
	go io.Copy(io.Discard, read)
	patience := time.AfterFunc(powerOffGrace, func() { cmd.Process.Kill() })
	defer patience.Stop()
	waitErr := cmd.Wait()
	if res.done {
		return res, readErr
	}
	if waitErr != nil && ctx.Err() == nil {
		waitErr = fmt.Errorf("%s: %w: %s", qemuProgram, waitErr, strings.TrimSpace(complaints.String()))
	}
	return res, errors.Join(readErr, waitErr)
}

func lastLines(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), "\r", "")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// savedTerminal restores what QEMU changes if it is killed.
type savedTerminal struct {
	fd    int
	state *unix.Termios
}

// terminalOf also tells the guest the window's size in interactive mode.
func terminalOf(f *os.File, j *job) savedTerminal {
	t := savedTerminal{fd: int(f.Fd())}
	if !j.Shell {
		return t
	}
	if state, err := unix.IoctlGetTermios(t.fd, unix.TCGETS); err == nil {
		t.state = state
	}
	if size, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ); err == nil {
		j.Rows, j.Columns = size.Row, size.Col
	}
	return t
}

func (t savedTerminal) restore() {
	if t.state != nil {
		_ = unix.IoctlSetTermios(t.fd, unix.TCSETS, t.state)
	}
}
