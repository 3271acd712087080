package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// imagePrefix and an image's name are what the topologies call it.
const imagePrefix = "egret-lab/"

//go:embed frr-start.sh
var frrStart string

// An image is a container image made of this machine's files.
type image struct {
	name string
	// cmd is the default command, as docker's CMD in JSON.
	cmd string
	// fill adds everything but busybox, which every image has.
	fill func(ctx context.Context, r *rootfs, own programs) error
}

// programs are the files of this tree's own programs.
type programs struct{ egret, egretlab string }

// images are all that the topologies use.
func images() []image {
	return []image{
		{
			name: "host",
			cmd:  `["sleep", "infinity"]`,
			fill: func(_ context.Context, r *rootfs, own programs) error {
				return r.addFile("usr/bin/egretlab", own.egretlab)
			},
		},
		{
			name: "gateway",
			cmd:  `["egret", "run", "--config", "/etc/egret/egret.yaml"]`,
			fill: func(ctx context.Context, r *rootfs, own programs) error {
				r.addDir("etc/egret", 0)
				return errors.Join(r.addFile("usr/bin/egret", own.egret), r.addPrograms(ctx, "nft", "ip", "ping"))
			},
		},
		{
			name: "frr",
			cmd:  `["frr-start"]`,
			fill: func(ctx context.Context, r *rootfs, own programs) error {
				const frr = 100 // as in newRootfs's passwd
				r.addDir("run/frr", frr)
				r.addDir("etc/frr", frr)
				r.addContent("etc/frr/vtysh.conf", 0o644, "service integrated-vtysh-config\n")
				r.addContent("usr/sbin/frr-start", 0o755, frrStart)
				// Debian's vtysh asks PAM, also for root.
				r.addContent("etc/pam.d/frr", 0o644, "auth required pam_permit.so\naccount required pam_permit.so\n")
				return errors.Join(
					r.addFile("usr/bin/egretlab", own.egretlab),
					r.addPrograms(ctx, "/usr/lib/frr/zebra", "/usr/lib/frr/bgpd", "vtysh"),
					r.addPlugin(ctx, "/lib/*/security/pam_permit.so", "/usr/lib*/security/pam_permit.so"),
					r.addTree("/usr/share/yang"),
				)
			},
		},
		{
			name: "bird",
			cmd:  `["bird", "-f", "-c", "/etc/bird/bird.conf"]`,
			fill: func(ctx context.Context, r *rootfs, own programs) error {
				r.addDir("run/bird", 0)
				r.addDir("etc/bird", 0)
				return errors.Join(r.addFile("usr/bin/egretlab", own.egretlab), r.addPrograms(ctx, "bird", "birdc"))
			},
		},
	}
}

func (r *rootfs) addPrograms(ctx context.Context, programs ...string) error {
	var errs []error
	for _, p := range programs {
		errs = append(errs, r.addProgram(ctx, p))
	}
	return errors.Join(errs...)
}

// buildImages writes every image as <name>.tar to dir. Egret and egretlab are
// built from this tree.
func buildImages(ctx context.Context, root, dir string) error {
	own := programs{egret: filepath.Join(dir, "egret"), egretlab: filepath.Join(dir, "egretlab")}
	err := errors.Join(
		goBuild(ctx, root, own.egret, "./cmd/egret", "-trimpath", "-ldflags", "-s -w"),
		goBuild(ctx, root, own.egretlab, "./lab/egretlab", "-trimpath", "-ldflags", "-s -w"),
	)
	if err != nil {
		return err
	}
	for _, i := range images() {
		if err := i.build(ctx, own, i.tarIn(dir)); err != nil {
			return fmt.Errorf("build image %q: %w", i.name, err)
		}
	}
	return nil
}

func (i image) tarIn(dir string) string { return filepath.Join(dir, i.name+".tar") }

func (i image) build(ctx context.Context, own programs, file string) error {
	r := newRootfs()
	if err := i.fill(ctx, r, own); err != nil {
		return err
	}
	if err := r.addBusybox(ctx); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(r.writeTar(f), f.Close())
}

// importImages gives the images in dir to a Docker.
func importImages(ctx context.Context, docker, dir string) error {
	for _, i := range images() {
		cmd := exec.CommandContext(ctx, docker, "import", "--change", "CMD "+i.cmd, i.tarIn(dir), imagePrefix+i.name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("import image %q: %w: %s", i.name, err, out)
		}
	}
	return nil
}
