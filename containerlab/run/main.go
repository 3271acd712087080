package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// topologyFile is relative to the module's root.
const topologyFile = "containerlab/egret.clab.yml"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "containerlab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	command := "vm"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("run "+command, flag.ContinueOnError)
	memory := flags.String("mem", "4G", "memory of the virtual machine")
	timeout := flags.Duration("timeout", 30*time.Minute, "end the virtual machine after this time")
	images := flags.String("images", "", "`directory` of the images (guest)")
	clab := flags.String("containerlab", "", "containerlab `program`; built when empty (check), needed (guest)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	say := newNarrator(os.Stdout)
	switch command {
	case "vm":
		return runVM(ctx, say, root, *memory, *timeout)
	case "images":
		return loadImagesHere(ctx, say, root)
	case "check":
		return checkHere(ctx, say, root, *clab)
	case "guest":
		return runGuest(ctx, say, root, *clab, *images)
	}
	return fmt.Errorf("unknown command %q: vm, images or check", command)
}

// moduleRoot is the directory of egret's go.mod, at or above the working
// directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, topologyFile)); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find %s: not at or above the working directory", topologyFile)
		}
		dir = parent
	}
}
