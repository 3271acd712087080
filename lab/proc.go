package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// runTimeout bounds Run: emulated machines are slow, hung commands are not rare.
	runTimeout = 60 * time.Second
	// stopTimeout is how long Stop waits for a process to end by itself.
	stopTimeout = 20 * time.Second
)

// Command prepares a program that will run in the namespace with Start or
// RunCommand; the caller may set its fields other than SysProcAttr.
func (ns *NS) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// start forks on the thread that lives in the namespace.
func (ns *NS) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if cmd.Dir == "" {
		// The thread has its own working directory, of the time when it was made.
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		cmd.Dir = dir
	}
	done := make(chan error, 1)
	ns.starts <- func() { done <- cmd.Start() }
	return <-done
}

// RunCommand runs a command to its end and returns its standard output. The
// error carries the end of its standard error.
func (ns *NS) RunCommand(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := ns.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("run %q in %q: %w: %s", strings.Join(cmd.Args, " "), ns.Name, err, tail(errs.String(), 20))
	}
	return out.String(), nil
}

// Run runs a program to its end, for at most a minute, and returns its
// standard output, also when it failed.
func (ns *NS) Run(args ...string) (string, error) {
	return ns.RunContext(ns.lab.ctx, args...)
}

// RunContext is Run that also ends with the context.
func (ns *NS) RunContext(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	return ns.RunCommand(ns.Command(ctx, args...))
}

// Must is Run for tests.
func (ns *NS) Must(args ...string) string {
	ns.lab.helper()
	out, err := ns.Run(args...)
	ns.lab.check(err)
	return out
}

// IP runs commands of ip(8), like "addr add 10.0.0.1/24 dev c0", in one batch
// that ends at the first failure.
func (ns *NS) IP(commands ...string) error {
	ctx, cancel := context.WithTimeout(ns.lab.ctx, runTimeout)
	defer cancel()
	cmd := ns.Command(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if _, err := ns.RunCommand(cmd); err != nil {
		return fmt.Errorf("ip %q: %w", commands, err)
	}
	return nil
}

// MustIP is IP for tests.
func (ns *NS) MustIP(commands ...string) {
	ns.lab.helper()
	ns.lab.check(ns.IP(commands...))
}

// A Proc is a program that runs in a namespace, with its output kept.
type Proc struct {
	// Name is what the lab's logs call it.
	Name string

	ns     *NS
	cmd    *exec.Cmd
	stdout string // file
	stderr string // file
	done   chan struct{}
	err    error // of Wait, after done
}

// Start starts a program and returns at once. What it writes is kept in files
// of the lab; names may repeat.
func (ns *NS) Start(name string, args ...string) (*Proc, error) {
	return ns.StartCommand(name, ns.Command(context.WithoutCancel(ns.lab.ctx), args...))
}

// MustStart is Start for tests.
func (ns *NS) MustStart(name string, args ...string) *Proc {
	ns.lab.helper()
	p, err := ns.Start(name, args...)
	ns.lab.check(err)
	return p
}

// StartCommand starts a prepared command, whose Stdout and Stderr are ours.
func (ns *NS) StartCommand(name string, cmd *exec.Cmd) (*Proc, error) {
	p := &Proc{Name: name, ns: ns, cmd: cmd, done: make(chan struct{})}
	if err := p.begin(); err != nil {
		return nil, fmt.Errorf("start %q in %q: %w", name, ns.Name, err)
	}
	ns.lab.mu.Lock()
	ns.lab.procs = append(ns.lab.procs, p)
	ns.lab.mu.Unlock()
	return p, nil
}

func (p *Proc) begin() error {
	out, err := os.CreateTemp(p.ns.dir, filepath.Base(p.Name)+"-*.out")
	if err != nil {
		return err
	}
	defer out.Close()
	errs, err := os.Create(strings.TrimSuffix(out.Name(), ".out") + ".err")
	if err != nil {
		return err
	}
	defer errs.Close()
	p.stdout, p.stderr = out.Name(), errs.Name()
	p.cmd.Stdout, p.cmd.Stderr = out, errs
	if err := p.ns.start(p.cmd); err != nil {
		return err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

// PID is the process's id, also after its end.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Running says whether the process has not ended yet.
func (p *Proc) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *Proc) state() string {
	if p.Running() {
		return fmt.Sprintf("running, pid %d", p.PID())
	}
	return p.cmd.ProcessState.String()
}

// Wait waits for the end of the process and returns an *exec.ExitError if its
// exit code was not 0, or the context's error if that ended first.
func (p *Proc) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("wait for %q in %q: %w", p.Name, p.ns.Name, ctx.Err())
	}
}

// ExitCode is -1 while the process runs and if a signal ended it.
func (p *Proc) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal; a process that has ended is an error.
func (p *Proc) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %q in %q: %w", p.Name, p.ns.Name, err)
	}
	return nil
}

// Stop ends the process with SIGTERM and waits. It is an error if it did not
// end in time, so that it had to be killed, or ended with an exit code other
// than 0; death by that signal is none, nor is a process that had ended well.
func (p *Proc) Stop() error {
	if p.Running() {
		if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.kill()
		return fmt.Errorf("stop %q in %q: still running after %v, killed", p.Name, p.ns.Name, stopTimeout)
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil
	}
	return p.err
}

// Kill9 kills the process, and none of its children, with SIGKILL and waits for its end.
func (p *Proc) Kill9() {
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// kill also kills the children that stayed in the process group.
func (p *Proc) kill() {
	if p.Running() {
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
		<-p.done
	}
}

// Pause stops the process's execution (SIGSTOP) until Resume.
func (p *Proc) Pause() error { return p.Signal(syscall.SIGSTOP) }

// Resume lets a paused process run again.
func (p *Proc) Resume() error { return p.Signal(syscall.SIGCONT) }

// Stdout is what the process has written to its standard output so far.
func (p *Proc) Stdout() string { return readAll(p.stdout) }

// Stderr is what the process has written to its standard error so far.
func (p *Proc) Stderr() string { return readAll(p.stderr) }

// Log is Stderr followed by Stdout.
func (p *Proc) Log() string { return p.Stderr() + p.Stdout() }

func readAll(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(text)
}

// WaitFor waits until the process has written this text. It fails when the
// process ends without it, or after the deadline.
func (p *Proc) WaitFor(ctx context.Context, deadline time.Duration, text string) error {
	return Poll(ctx, deadline, fmt.Sprintf("%q of %q in %q", text, p.Name, p.ns.Name), func() error {
		running := p.Running()
		if strings.Contains(p.Log(), text) {
			return nil
		}
		if !running {
			return Final(fmt.Errorf("%s: %s", p.state(), tail(p.Log(), 20)))
		}
		return fmt.Errorf("so far: %s", tail(p.Log(), 20))
	})
}
