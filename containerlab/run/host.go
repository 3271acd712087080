package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// runVM builds everything on this machine and runs "guest" in a virtual one.
func runVM(ctx context.Context, say *narrator, root, memory string, timeout time.Duration) (err error) {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	work, remove, err := workDir(cache)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	say.step("building containerlab (the first time this takes minutes), the VM runner and the images")
	clab, err := buildContainerlab(ctx, root, cache)
	if err != nil {
		return err
	}
	// Beside the rest, so that the guest sees it wherever the cache is.
	if err := os.Link(clab, filepath.Join(work, "containerlab")); err != nil {
		return err
	}
	say.ok("containerlab: %s", clab)
	vmrun, self := filepath.Join(work, "vmrun"), filepath.Join(work, "run")
	err = errors.Join(
		goBuild(ctx, root, vmrun, "./lab/vmrun"),
		goBuild(ctx, root, self, "./containerlab/run"),
		buildImages(ctx, root, work),
	)
	if err != nil {
		return err
	}
	say.ok("egret, FRR, BIRD and host images")

	say.step("booting the virtual machine")
	cmd := exec.CommandContext(ctx, vmrun, "-mem", memory, "-timeout", timeout.String(),
		self, "guest", "-containerlab", filepath.Join(work, "containerlab"), "-images", work)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, os.Stdout, os.Stderr
	// vmrun gives the terminal back and stops the machine on SIGTERM.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the topology in the virtual machine: %w", err)
	}
	say.step("all checks passed")
	return nil
}

// loadImagesHere builds the images and gives them to this machine's Docker.
func loadImagesHere(ctx context.Context, say *narrator, root string) (err error) {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	work, remove, err := workDir(cache)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	say.step("building the images")
	if err := buildImages(ctx, root, work); err != nil {
		return err
	}
	if err := importImages(ctx, "docker", work); err != nil {
		return err
	}
	say.ok("loaded %shost, gateway, frr and bird", imagePrefix)
	return nil
}

// checkHere deploys the topology with this machine's Docker and checks it.
func checkHere(ctx context.Context, say *narrator, root, clab string) error {
	if clab == "" {
		cache, err := cacheDir()
		if err != nil {
			return err
		}
		if clab, err = buildContainerlab(ctx, root, cache); err != nil {
			return err
		}
	}
	l := &lab{docker: "docker", containerlab: clab, topology: filepath.Join(root, topologyFile)}
	return checkTopology(ctx, say, l)
}
