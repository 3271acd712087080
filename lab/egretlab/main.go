// Command egretlab makes and observes traffic: it is the client and the server
// of labs, container images and shells. It is one static program without
// configuration.
//
//	egretlab serve   -name red -http 80 -tcp 7 -udp 7
//	egretlab fetch   -source 10.244.1.10:4444 http://10.0.0.5/
//	egretlab udp     -source 10.244.1.10 10.0.0.5:7
//	egretlab ping    -source 10.244.1.10 -count 5 10.0.0.5
//	egretlab stream  -proto icmp|udp -interval 10ms -duration 30s 10.0.0.5[:7]
//	egretlab tcp     -interval 100ms -duration 30s 10.0.0.5:7
//	egretlab sniff   -allow 198.51.100.0/28,172.16.0.1/32 -direction in eth0
//	egretlab inject  -proto tcp -flags SYN+FIN -source 10.244.1.10:1 10.0.0.5:80
//
// What runs for a time ends with SIGINT or SIGTERM and then prints its report
// as JSON. It writes "ready" to standard error once its sockets are open. Exit
// codes: 0 if all is well; 1 if there was no answer, something was lost, broken
// or leaked; 2 for wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// errOutcome is a result that the report has already told.
var errOutcome = errors.New("")

// errUsage is the caller's mistake.
var errUsage = errors.New("usage")

// env is what a subcommand works with.
type env struct {
	flags  *flag.FlagSet
	args   []string
	stdout io.Writer
	stderr io.Writer
}

// parse reads the flags and wants this many arguments after them.
func (e *env) parse(args int) error {
	if err := e.flags.Parse(e.args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if e.flags.NArg() != args {
		return fmt.Errorf("%w: want %d arguments, got %q", errUsage, args, e.flags.Args())
	}
	return nil
}

func (e *env) ready() { fmt.Fprintln(e.stderr, "ready") }

func (e *env) report(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func commands() map[string]func(context.Context, *env) error {
	return map[string]func(context.Context, *env) error{
		"serve": serve, "fetch": fetch, "udp": udp, "ping": ping, "stream": stream, "tcp": tcp, "sniff": sniff, "inject": inject,
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var names []string
	for name := range commands() {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(args) == 0 || commands()[args[0]] == nil {
		fmt.Fprintf(stderr, "usage: egretlab %s [flags] ...\n", strings.Join(names, "|"))
		return 2
	}
	e := &env{flags: flag.NewFlagSet(args[0], flag.ContinueOnError), args: args[1:], stdout: stdout, stderr: stderr}
	e.flags.SetOutput(stderr)
	err := commands()[args[0]](ctx, e)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, "egretlab:", err)
		return 2
	case !errors.Is(err, errOutcome):
		fmt.Fprintln(stderr, "egretlab:", err)
	}
	return 1
}

// limited ends the context after d, if that is positive.
func limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d > 0 {
		return context.WithTimeout(ctx, d)
	}
	return context.WithCancel(ctx)
}
