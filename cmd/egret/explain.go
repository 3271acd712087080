package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
)

// Exit codes of explain: the traffic would be dropped; the kernel does
// something else than the configuration says.
const (
	exitDropped  exitCode = 2
	exitDisagree exitCode = 3
)

// explainFlags are the flow that is asked about.
type explainFlags struct {
	file, src, dst, proto, output string
	sport, dport                  uint16
}

func explainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --src ADDRESS --dst ADDRESS",
		Short: "Say step by step what becomes of a client's traffic, and check it against the kernel",
		Long: `Explain follows a new flow from SRC to DST through the configuration (client, policy, rule, hop set, next hops,
route, pool address, advertisement) and asks the kernel for the same: the packet filter as it is loaded, and the
route that such a packet takes. It changes nothing. Established flows may still go where an earlier configuration
sent them.

Exit code 2: the traffic would be dropped. Exit code 3: the kernel disagrees.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return explain(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "config", "c", "/etc/egret/egret.yaml", "configuration file")
	flags.StringVar(&f.src, "src", "", "the client's address (required)")
	flags.StringVar(&f.dst, "dst", "", "the destination (required)")
	flags.StringVar(&f.proto, "proto", "", "tcp, udp, icmp, or a protocol number; ports decide among several next hops")
	flags.Uint16Var(&f.sport, "sport", 0, "source port")
	flags.Uint16Var(&f.dport, "dport", 0, "destination port")
	flags.StringVarP(&f.output, "output", "o", "table", "table or json")
	for _, name := range []string{"src", "dst"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return cmd
}

// flow checks the flags.
func (f explainFlags) flow() (egress.Flow, error) {
	out := egress.Flow{SrcPort: f.sport, DstPort: f.dport}
	var err error
	if out.Src, err = netip.ParseAddr(f.src); err != nil {
		return out, fmt.Errorf("--src %q: not an IP address", f.src)
	}
	if out.Dst, err = netip.ParseAddr(f.dst); err != nil {
		return out, fmt.Errorf("--dst %q: not an IP address", f.dst)
	}
	out.Src, out.Dst = out.Src.Unmap().WithZone(""), out.Dst.Unmap().WithZone("")
	if out.Src.Is4() != out.Dst.Is4() {
		return out, fmt.Errorf("--dst %s is of another address family than --src %s", out.Dst, out.Src)
	}
	switch f.proto {
	case "":
	case "tcp":
		out.Proto = 6
	case "udp":
		out.Proto = 17
	case "icmp":
		out.Proto = 1
		if out.Src.Is6() {
			out.Proto = 58
		}
	default:
		n, err := strconv.ParseUint(f.proto, 10, 8)
		if err != nil {
			return out, fmt.Errorf("--proto %q: use tcp, udp, icmp or a number up to 255", f.proto)
		}
		out.Proto = uint8(n)
	}
	if (f.sport != 0 || f.dport != 0) && f.proto == "" {
		return out, fmt.Errorf("--sport and --dport need --proto")
	}
	return out, nil
}

func explain(cmd *cobra.Command, f explainFlags) error {
	if f.output != "table" && f.output != "json" {
		return fmt.Errorf("--output %q: use table or json", f.output)
	}
	flow, err := f.flow()
	if err != nil {
		return err
	}
	spec, err := config.Load(f.file)
	if err != nil {
		return err
	}
	m, err := openMachine(spec.Settings, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer m.Close()
	e, err := egress.MakeExplanation(cmd.Context(), spec, m.kernel, m.kernel, m.filter, askDaemon(cmd, spec.Settings), flow)
	if err != nil {
		return err
	}
	if f.output == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		err = enc.Encode(e)
	} else {
		err = printExplanation(cmd.OutOrStdout(), e)
	}
	switch {
	case err != nil:
		return err
	case len(e.Disagreements) > 0:
		return exitDisagree
	case e.Dropped:
		return exitDropped
	}
	return nil
}

func printExplanation(out io.Writer, e *egress.Explanation) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, s := range e.Steps {
		fmt.Fprintf(w, "%s\t%s\n", s.What, s.Text)
	}
	result := "forwarded (" + string(e.Outcome) + ")"
	if e.Dropped {
		result = "DROPPED"
		if e.Outcome == egress.OutcomeReject {
			result = "REJECTED"
		}
	}
	fmt.Fprintf(w, "result\t%s\n", result)
	return w.Flush()
}
