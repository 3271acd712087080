package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

type stringList []string

func (l *stringList) String() string     { return fmt.Sprint(*l) }
func (l *stringList) Set(s string) error { *l = append(*l, s); return nil }

type options struct {
	quick    bool
	pps      bool
	cases    string
	packets  int
	rounds   int
	egret    string
	vmrun    string
	json     bool
	variants stringList
	guest    string
}

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "fewer cases and packets, no packets per second: below 2 minutes")
	fs.BoolVar(&o.pps, "pps", true, "after the instructions, measure packets per second in a second VM")
	fs.StringVar(&o.cases, "cases", "", "only the plain case and those whose name matches this `regexp`")
	fs.IntVar(&o.packets, "packets", 0, "packets of one measurement (default 10240, 3200 with -quick)")
	fs.IntVar(&o.rounds, "rounds", 3, "measurements of each kind: the median counts, and the spread is shown")
	fs.StringVar(&o.egret, "egret", "bin/egret", "the `binary` that is measured")
	fs.StringVar(&o.vmrun, "vmrun", "bin/vmrun", "the VM runner's `binary`")
	fs.BoolVar(&o.json, "json", false, "write the report as JSON")
	fs.Var(&o.variants, "variant", "a further case `NAME=CASE:FILE`: CASE, once set up, changed by the shell script FILE (repeatable)")
	fs.StringVar(&o.guest, "guest", "", "measure here, as this `JSON` asks for (the runner's VM uses it)")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected arguments %q", fs.Args())
	}
	if o.packets == 0 {
		o.packets = 10240
		if o.quick {
			o.packets = 3200
		}
	}
	if o.rounds < 1 || o.packets < streams {
		return o, fmt.Errorf("want at least one round and %d packets", streams)
	}
	return o, nil
}

func run(ctx context.Context, o options) error {
	if o.guest != "" {
		var g guestOptions
		if err := json.Unmarshal([]byte(o.guest), &g); err != nil {
			return fmt.Errorf("-guest: %w", err)
		}
		return guest(ctx, g, os.Stdout, os.Stderr)
	}
	return host(ctx, o, os.Stdout)
}
