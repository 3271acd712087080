package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/drain"
)

func statusCommand() *cobra.Command {
	var socket, output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show networks, sessions, pools, policies and next hops of the running daemon",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := control.NewClient(socket).Status(cmd.Context())
			if err != nil {
				return err
			}
			switch output {
			case "json":
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			case "table":
				return printStatus(cmd.OutOrStdout(), s, time.Now())
			}
			return fmt.Errorf("--output %q: use table or json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.Flags().StringVar(&socket, "socket", control.SocketPath(config.DefaultRunDir), "control socket of the daemon")
	return cmd
}

// printStatus writes the tables a person reads. now is the time ages count to.
func printStatus(out io.Writer, s *egress.Status, now time.Time) error {
	fmt.Fprintf(out, "egret %s, up %s, configuration of %s\n", s.Version, age(now, s.Started), s.Config.LoadedAt.Format(time.RFC3339))
	if s.Config.Error != "" {
		fmt.Fprintf(out, "LAST RELOAD REFUSED, an older configuration runs:\n  %s\n", strings.ReplaceAll(s.Config.Error, "\n", "\n  "))
	}
	if s.Round.LastError != "" {
		fmt.Fprintf(out, "LAST ROUND FAILED, it is tried again:\n  %s\n", strings.ReplaceAll(s.Round.LastError, "\n", "\n  "))
	}
	for _, p := range s.Problems {
		fmt.Fprintf(out, "IN THE WAY: %s\n", p)
	}
	if c := s.ClientBGP; c != nil {
		fmt.Fprintf(out, "The clients' routers are told of %d destinations; withheld, since they lead nowhere now: %s\n", len(c.Advertised), dash(prefixes(c.Withheld)))
		if c.Error != "" {
			fmt.Fprintf(out, "BGP TOWARDS THE CLIENTS IS IN ERROR: %s\n", c.Error)
		}
	}
	printProbeCost(out, s, now)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nNETWORK\tPHASE\tFOR\tTABLE\tZONE\tPORTS\tROUTES\tREASON")
	for _, n := range s.Networks {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", n.Name, n.Phase, age(now, n.Since), n.Table, n.Zone,
			ports(n.Ports), routes(n), dash(n.Reason))
	}
	fmt.Fprintln(w, "\nNETWORK\tPEER\tASN\tSTATE\tFOR\tRECEIVED\tACCEPTED\tADVERTISED\tLAST ERROR")
	speaking := s.Networks
	if s.ClientBGP != nil {
		speaking = append(slices.Clip(speaking), egress.NetworkStatus{Name: egress.ClientsNetwork, Peers: s.ClientBGP.Peers})
	}
	for _, n := range speaking {
		for _, p := range n.Peers {
			note := p.LastError
			if note != "" && p.State == "established" {
				note = "earlier: " + note
			}
			if p.ImportMissing {
				note = strings.TrimPrefix(note+"; no import list: nothing is accepted (RFC 8212)", "; ")
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%s\n", n.Name, p.Address, p.ASN, p.State, age(now, p.Since),
				p.Received, p.Accepted, p.Advertised, dash(note))
		}
	}
	fmt.Fprintln(w, "\nNETWORK\tNEXT HOP\tDEVICE\tLIVE\tUSABLE\tROUTES\tPATHS\tREASON")
	for _, n := range s.Networks {
		for _, h := range n.NextHops {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", n.Name, h.Address, dash(h.Device), yes(h.Live), yes(h.Usable), h.Routes, h.Paths, dash(h.Reason))
		}
	}
	printDrains(w, s.Networks, now)
	printHopPaths(w, s.Networks)
	printProbes(w, s.Networks, now)
	fmt.Fprintln(w, "\nPOOL\tNETWORK\tPREFIXES\tADDRESSES\tSTICKY BY\tFLOWS\tADVERTISED\tREASON")
	for _, p := range s.Pools {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d+%d\t%s\t%d\t%s\t%s\n", p.Name, p.Network, prefixes(p.Prefixes), p.Addresses4, p.Addresses6,
			p.Stickiness, p.Flows, yes(p.Advertised), dash(p.Reason))
	}
	fmt.Fprintln(w, "\nPOLICY\tCLIENTS\tDESTINATION\tACTION\tTO\tFORWARDING")
	for _, p := range s.Policies {
		for _, r := range p.Rules {
			to := "-"
			if r.Network != "" {
				to = r.Network + " as " + r.Pool
			}
			if len(r.NextHops) > 0 {
				to += " by " + addresses(r.NextHops)
			}
			if r.MaxNextHops > 0 {
				to += fmt.Sprintf(" at most %d", r.MaxNextHops)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, prefixes(p.Clients), r.Destination, r.Action, to, yes(r.Forwarding))
		}
	}
	printDrops(w, s.Drops)
	return w.Flush()
}

// printProbeCost says what probes send, and what those that are one packet and
// its answer have taken of a processor since the start.
func printProbeCost(out io.Writer, s *egress.Status, now time.Time) {
	packets := 0.0
	for _, n := range s.Networks {
		for _, p := range n.Probes {
			packets += p.PacketsPerSecond
		}
	}
	c := s.ProbeCost
	if c == nil || packets == 0 {
		return
	}
	fmt.Fprintf(out, "Probes: %.0f packets/s", packets)
	if ran := now.Sub(c.Since); c.Attempts > 0 && ran > 0 {
		fmt.Fprintf(out, "; icmp and arp-nd took %.2f %% of a processor so far, %v for an attempt",
			100*c.CPU.Seconds()/ran.Seconds(), (c.CPU / time.Duration(c.Attempts)).Round(100*time.Nanosecond))
	}
	fmt.Fprintln(out)
}

// printProbes lists all probes, and then what more there is to say of BFD sessions.
func printProbes(w io.Writer, networks []egress.NetworkStatus, now time.Time) {
	fmt.Fprintln(w, "\nNETWORK\tPROBE\tVERDICT\tFOR\tTARGET\tTARGET VERDICT\tRTT\tFAILURES\tLAST ERROR")
	for _, n := range networks {
		for _, p := range n.Probes {
			for _, t := range p.Targets {
				verdict := t.Verdict
				if t.Suppressed {
					verdict += " (suppressed)"
				}
				rtt, failures := t.LastRTT.Round(10*time.Microsecond).String(), fmt.Sprintf("%d/%d", t.Failures, t.Attempts)
				if p.BFD != nil {
					rtt, failures = "-", "-"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, p.Name, p.Verdict, age(now, p.Since), t.Target,
					verdict, rtt, failures, dash(t.LastError))
			}
		}
	}
	header := "\nNETWORK\tBFD SESSION\tSTATE\tFOR\tPEER STATE\tSEND\tRECEIVE\tDETECT\tUPS\tDOWNS\tDIAGNOSTIC\tPEER'S\n"
	for _, n := range networks {
		for _, p := range n.Probes {
			b := p.BFD
			if b == nil {
				continue
			}
			state := b.State
			if b.Stale {
				state += " (stale)"
			}
			fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", header, n.Name, p.Name, state, age(now, p.Since),
				b.PeerState, b.TxInterval, b.RxInterval, b.DetectTime, b.Ups, b.Downs, b.Diagnostic, b.PeerDiagnostic)
			header = ""
		}
	}
}

// printDrains lists the networks that are drained.
func printDrains(w io.Writer, networks []egress.NetworkStatus, now time.Time) {
	header := "\nNETWORK\tDRAIN\tFOR\tDEADLINE IN\tFLOWS\tENDED\tLEFT\n"
	for _, n := range networks {
		d := n.Drain
		if d == nil {
			continue
		}
		deadline, ended, left := "-", "-", "-"
		if d.Stage != drain.Withdrawn {
			deadline = max(0, d.Deadline.Sub(now)).Round(time.Second).String()
		}
		if d.Counted {
			ended, left = fmt.Sprint(d.FlowsEnded), fmt.Sprint(d.FlowsLeft)
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%d\t%s\t%s\n", header, n.Name, d.Stage, age(now, d.Since), deadline, d.Flows, ended, left)
		header = ""
	}
}

// printHopPaths lists the choices of next hops that rules made necessary.
func printHopPaths(w io.Writer, networks []egress.NetworkStatus) {
	header := "\nNETWORK\tPATH\tTABLE\tFAMILY\tSTATE\tNEXT HOPS\tSPARE\tFLOWS\n"
	for _, n := range networks {
		for _, p := range n.Paths {
			family := "ipv4"
			if p.IPv6 {
				family = "ipv6"
			}
			fmt.Fprintf(w, "%s%s\t%d\t%d\t%s\t%s\t%s\t%s\t%d\n", header, n.Name, p.Number, p.Table, family, p.State,
				dash(addresses(p.NextHops)), dash(addresses(p.Spare)), p.Flows)
			header = ""
		}
	}
}

func addresses(as []netip.Addr) string {
	out := make([]string, 0, len(as))
	for _, a := range as {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

// printDrops lists the reasons that have discarded something.
func printDrops(w io.Writer, drops []egress.DropStatus) {
	header := "\nDROPPED\tNETWORK\tPACKETS\tBYTES\n"
	for _, d := range drops {
		if d.Packets > 0 {
			fmt.Fprintf(w, "%s%s\t%s\t%d\t%d\n", header, d.Reason, dash(d.Network), d.Packets, d.Bytes)
			header = ""
		}
	}
}

func age(now, since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return now.Sub(since).Round(time.Second).String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return strings.ReplaceAll(s, "\n", "; ")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func ports(ps []egress.PortStatus) string {
	out := make([]string, 0, len(ps))
	for _, p := range ps {
		state := ""
		switch {
		case !p.Present:
			state = "(missing)"
		case !p.Up:
			state = "(down)"
		case !p.Carrier:
			state = "(no carrier)"
		}
		out = append(out, p.Name+state)
	}
	return dash(strings.Join(out, ","))
}

func routes(n egress.NetworkStatus) string {
	text := fmt.Sprintf("%d static, %d learned", n.StaticRoutes, n.LearnedRoutes)
	if n.Stale {
		text += " (kept from before the restart)"
	}
	if n.UnresolvedRoutes > 0 {
		text += fmt.Sprintf(", %d unresolved", n.UnresolvedRoutes)
	}
	return text
}

func prefixes(ps []netip.Prefix) string {
	out := make([]string, 0, len(ps))
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, ",")
}
