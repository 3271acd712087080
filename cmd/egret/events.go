package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
)

// eventQuery is what the user wants to see.
type eventQuery struct {
	network string
	since   time.Duration
	after   uint64
	follow  bool
	json    bool
}

func eventsCommand() *cobra.Command {
	var socket, output, since string
	var q eventQuery
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: verdicts, next hops, sessions, withdrawals, with causes and times",
		Long: `Events shows the last 10,000 events of the running daemon, oldest first. DETECTED is the time from the first sign of a
failure to the verdict, KERNEL from the verdict until the kernel no longer used what had failed, WITHDRAWN from the verdict
until BGP had been told. --follow goes on until it is interrupted, also over a restart of the daemon.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q: use table or json", output)
			}
			q.json = output == "json"
			if err := q.begin(since); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return showEvents(ctx, cmd.OutOrStdout(), control.NewClient(socket), q)
		},
	}
	cmd.Flags().StringVarP(&q.network, "network", "n", "", "only those of this network")
	cmd.Flags().StringVar(&since, "since", "", "only those of this long ago (5m), or after this number (seq in -o json)")
	cmd.Flags().BoolVarP(&q.follow, "follow", "f", false, "wait for further events")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one object in a line)")
	cmd.Flags().StringVar(&socket, "socket", control.SocketPath(config.DefaultRunDir), "control socket of the daemon")
	return cmd
}

// begin reads --since, which is a duration or the number of an event.
func (q *eventQuery) begin(since string) error {
	if since == "" {
		return nil
	}
	var err error
	if q.after, err = strconv.ParseUint(since, 10, 64); err == nil {
		return nil
	}
	if q.since, err = time.ParseDuration(since); err != nil || q.since <= 0 {
		return fmt.Errorf("--since %q: use a time like 5m, or the number of an event", since)
	}
	return nil
}

// showEvents prints what there is; to follow means to ask again, and to begin
// anew when the daemon has.
func showEvents(ctx context.Context, out io.Writer, client *control.Client, q eventQuery) error {
	if !q.json {
		fmt.Fprintf(out, eventLine, "TIME", "KIND", "NETWORK", "STATE", "DETECTED", "KERNEL", "WITHDRAWN", "SUBJECT, CAUSE")
	}
	after := q.after
	var started time.Time
	for first := true; ; first = false {
		answer, err := client.Events(ctx, after, q.follow && !first)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && q.follow && !first && errors.Is(err, control.ErrNoDaemon):
			if !pause(ctx, time.Second) {
				return nil
			}
			continue
		case err != nil:
			return err
		}
		if !first && !answer.Started.Equal(started) {
			started, after = answer.Started, 0
			continue
		}
		started = answer.Started
		for _, e := range answer.Events {
			after = e.Seq
			if q.wants(e) {
				printEvent(out, e, q.json)
			}
		}
		if !q.follow {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (q eventQuery) wants(e egress.Event) bool {
	return (q.network == "" || q.network == e.Network) && (q.since == 0 || time.Since(e.At) <= q.since)
}

const eventLine = "%-23s  %-8s  %-10s  %-12s  %-9s  %-9s  %-9s  %s\n"

func printEvent(out io.Writer, e egress.Event, asJSON bool) {
	if asJSON {
		_ = json.NewEncoder(out).Encode(e)
		return
	}
	what := strings.TrimSuffix(e.Subject+": "+firstLine(e.Cause), ": ")
	if e.Attempts > 1 && e.Cause != "" {
		what += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	fmt.Fprintf(out, eventLine, e.At.Local().Format("2006-01-02 15:04:05.000"), e.Kind, dash(e.Network), e.State,
		took(e.Detection), took(e.Kernel), took(e.Withdraw), strings.TrimPrefix(what, ": "))
}

func firstLine(s string) string {
	line, more, _ := strings.Cut(s, "\n")
	if more != "" {
		line += " ..."
	}
	return line
}

func took(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
