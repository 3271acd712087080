package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// dockerBin is the package's own Docker client: another one in PATH may be too
// new for Debian's daemon.
const dockerBin = "/usr/bin/docker"

// dockerModules are what dockerd does not get from the kernel on demand.
var dockerModules = []string{"overlay", "bridge", "br_netfilter", "veth", "nf_nat", "nft_chain_nat",
	"xt_MASQUERADE", "xt_addrtype", "xt_conntrack", "iptable_nat", "iptable_filter", "vrf", "sch_netem"}

// runGuest gives the virtual machine a Docker, loads the images and checks the
// topology. It leaves files and mounts as they are: the machine ends with it.
func runGuest(ctx context.Context, say *narrator, root, clab, imageDir string) error {
	if os.Getenv("EGRET_VM") == "" {
		return errors.New("\"guest\" starts a Docker daemon and is for the virtual machine only")
	}
	say.step("starting Docker in the virtual machine")
	var daemons daemons
	defer daemons.kill()
	if err := startDocker(ctx, &daemons); err != nil {
		return err
	}
	say.ok("Docker answers")
	if err := importImages(ctx, dockerBin, imageDir); err != nil {
		return err
	}
	say.ok("it has the images")
	// The tree is shared with the host: containerlab would write beside the topology.
	copied := "/run/egret-topology"
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(root, "containerlab"))); err != nil {
		return fmt.Errorf("copy topology: %w", err)
	}
	l := &lab{docker: dockerBin, containerlab: clab, topology: filepath.Join(copied, filepath.Base(topologyFile))}
	return checkTopology(ctx, say, l)
}

// startDocker starts containerd and dockerd with their data in memory, and
// returns when they answer.
func startDocker(ctx context.Context, daemons *daemons) error {
	if out, err := exec.CommandContext(ctx, "modprobe", append([]string{"-a"}, dockerModules...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("load kernel modules: %w: %s", err, out)
	}
	for _, dir := range []string{"/var/lib/docker", "/var/lib/containerd"} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount tmpfs on %q: %w", dir, err)
		}
	}
	const socket = "/run/containerd/containerd.sock"
	err := daemons.start(ctx, "containerd", []string{"--log-level", "warn"}, func(ctx context.Context) error {
		return run1(ctx, "ctr", "--address", socket, "version")
	})
	if err != nil {
		return err
	}
	return daemons.start(ctx, "dockerd", []string{"--containerd", socket, "--log-level", "warn"}, func(ctx context.Context) error {
		return run1(ctx, dockerBin, "version")
	})
}

// daemons are the programs started, in that order.
type daemons []*exec.Cmd

// kill ends them without ceremony: their data goes with the machine. An error
// says that one had ended by itself, which is of no interest any more.
func (d *daemons) kill() {
	for _, cmd := range slices.Backward(*d) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// start runs a program and waits until it is ready; its output is shown if that
// does not happen.
func (d *daemons) start(ctx context.Context, program string, args []string, ready func(context.Context) error) error {
	output := filepath.Join("/run", program+".output")
	f, err := os.Create(output)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	*d = append(*d, cmd)
	if err := eventually(ctx, 2*time.Minute, program+" answers", ready); err != nil {
		text, readErr := os.ReadFile(output)
		return errors.Join(err, readErr, fmt.Errorf("%s said:\n%s", program, text))
	}
	return nil
}

// run1 runs a program for its exit code; the error has its output.
func run1(ctx context.Context, program string, args ...string) error {
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, out)
	}
	return nil
}
