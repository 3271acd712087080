package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/egret-router/egret/lab"
)

// A process is a program that was started: lab.Proc, or one outside of a lab.
type process interface {
	Running() bool
	Stop() error
	Kill9()
	Log() string
}

// A place is where programs run: this machine, or a namespace.
type place interface {
	start(name string, args ...string) (process, error)
	run(ctx context.Context, stdin string, args ...string) (string, error)
	dial(address string) (net.Conn, error)
	close()
}

const dialTimeout = 5 * time.Second

// inside is a namespace of a lab.
type inside struct{ *lab.NS }

func (p inside) start(name string, args ...string) (process, error) { return p.Start(name, args...) }

func (p inside) run(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := p.Command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	return p.RunCommand(cmd)
}

func (p inside) dial(address string) (conn net.Conn, err error) {
	err = p.Do(func() error {
		conn, err = net.DialTimeout("tcp", address, dialTimeout)
		return err
	})
	return conn, err
}

func (inside) close() {}

// here is this machine. Processes are started by one thread that lives as long
// as the server, since the kernel kills them when that thread ends: nothing
// outlives a test binary that is killed.
type here struct {
	dir    string
	starts chan func()
}

func newHere(dir string) *here {
	h := &here{dir: dir, starts: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		for start := range h.starts {
			start()
		}
	}()
	return h
}

func (h *here) close() { close(h.starts) }

func (h *here) dial(address string) (net.Conn, error) {
	return net.DialTimeout("tcp", address, dialTimeout)
}

func (h *here) run(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run %q: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func (h *here) start(name string, args ...string) (process, error) {
	file, err := os.OpenFile(filepath.Join(h.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	h.starts <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %q: %w", name, err)
	}
	p := &hostProcess{cmd: cmd, log: file.Name(), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// hostProcess is a process outside of a lab.
type hostProcess struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // of Wait, after done
}

func (p *hostProcess) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *hostProcess) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.Kill9()
		return fmt.Errorf("stop %q: still running after 30 s, killed", p.cmd.Path)
	}
	return nil
}

func (p *hostProcess) Kill9() {
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

func (p *hostProcess) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	return string(text)
}

// Command runs a program on this machine, and returns its standard output.
func Command(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	return (&here{}).run(ctx, "", args...)
}
