package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/egret-router/egret/lab"
)

// A place is where the lab runs: here, or in a VM.
type place struct {
	here bool
	say  string // one line for the user, or nothing where it has been said
}

// choose decides by the variable EGRET_VM, which vmrun sets to 1 in its guest,
// and by what this machine can do.
func choose(vm string, check func() error) place {
	switch vm {
	case "1":
		return place{here: true}
	case "always":
		return place{say: "The lab runs in a VM (EGRET_VM=always). Starting it..."}
	}
	if err := check(); err != nil {
		reason := strings.ReplaceAll(err.Error(), "\n", "; ")
		return place{say: "The lab runs in a VM (this machine: " + reason + "). Starting it..."}
	}
	return place{here: true, say: "The lab runs in network namespaces of this machine: we are root, and the kernel has VRFs."}
}

// capable says what keeps the lab from running here that a VM has.
func capable() error {
	if err := lab.Check(lab.Root); err != nil {
		return err // the rest cannot be told
	}
	return lab.Check(lab.VRF, lab.Nft)
}

// bootVM replaces this process by vmrun, which runs us again in its guest and
// ends with our exit code.
func bootVM(root string, shell, colors bool) error {
	vmrun := filepath.Join(root, "bin", "vmrun")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{vmrun}
	if shell {
		args = append(args, "-shell")
	}
	args = append(args, self, "-color="+map[bool]string{true: "always", false: "never"}[colors])
	if shell {
		args = append(args, "-shell")
	}
	// The guest shares the directory that we are in.
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := syscall.Exec(vmrun, args, os.Environ()); err != nil {
		return fmt.Errorf("start %q: %w (make demo builds it)", vmrun, err)
	}
	return nil
}

// moduleRoot is the nearest directory upwards that has a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod in %q or above: run the demo in its repository", dir)
		}
	}
}

func egretBinary(root string) (string, error) {
	path := os.Getenv("EGRET_BIN")
	if path == "" {
		path = filepath.Join(root, "bin", "egret")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return "", errors.Join(fmt.Errorf("no egret at %q (make build)", path), err)
	}
	return path, nil
}
