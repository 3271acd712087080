// Command demo shows Egret at work: the standing topology of two external
// networks with the same addresses, real routers, and the real daemon with the
// configuration egret.yaml.
//
//	demo          tells a story of numbered steps and ends; exit code 1 if a step was not seen
//	demo -shell   brings the same lab up and gives a shell to play in
//
// It runs in network namespaces of this machine if we are root and the kernel
// has VRFs, else in a VM, by bin/vmrun. EGRET_VM=always uses the VM in any case,
// EGRET_BIN is the egret that is shown (default bin/egret of this module).
// Colours are for terminals; NO_COLOR turns them off.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/egret-router/egret/lab"
)

// wholeStory bounds a demo; a step that waits in vain ends it earlier.
const wholeStory = 12 * time.Minute

func main() {
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type options struct {
	shell  bool
	color  string
	socket string   // of a running demo, for -tell
	words  []string // after -tell SOCKET
}

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.BoolVar(&o.shell, "shell", false, "bring the lab up and give a shell instead of the story")
	fs.StringVar(&o.color, "color", "auto", "auto, always or never")
	fs.StringVar(&o.socket, "tell", "", "tell the demo that listens on this `socket` something (the shell's commands use it)")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.words = fs.Args()
	if o.socket == "" && len(o.words) > 0 {
		fmt.Fprintf(fs.Output(), "demo: unexpected arguments %q\n", o.words)
		return o, errors.New("usage")
	}
	return o, nil
}

func run(o options) error {
	if o.socket != "" {
		return tell(o.socket, o.words, os.Stdout)
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	colors := useColors(o.color, os.Stdout, os.Getenv)
	p := choose(os.Getenv("EGRET_VM"), capable)
	if p.say != "" {
		fmt.Println(p.say)
	}
	if !p.here {
		return bootVM(root, o.shell, colors)
	}
	binary, err := egretBinary(root)
	if err != nil {
		return err
	}
	if err := lab.Check(lab.Root, lab.VRF, lab.Nft, lab.Conntrack, lab.FRR, lab.BIRD); err != nil {
		return err
	}
	d := &demo{screen: newScreen(os.Stdout, colors), binary: binary}
	if o.shell {
		return d.play()
	}
	return d.tellStory()
}

// tellStory goes through all steps and closes the lab.
func (d *demo) tellStory() error {
	signals, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(signals, wholeStory)
	defer cancel()
	l, err := lab.Start(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	err = d.steps(ctx, l)
	switch {
	case err == nil:
	case signals.Err() != nil:
		err = errors.New("interrupted")
	default:
		d.screen.failed(err)
		l.WriteLogs(os.Stdout, 40)
	}
	if closing := l.Close(); closing != nil {
		err = errors.Join(err, fmt.Errorf("close the lab: %w", closing))
	}
	if err == nil {
		d.screen.end()
	}
	return err
}
