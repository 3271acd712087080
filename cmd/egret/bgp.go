package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
)

// bgpFlags are the options of all `egret bgp` commands.
type bgpFlags struct{ network, peer, prefix, output, socket string }

func bgpCommand() *cobra.Command {
	var f bgpFlags
	cmd := &cobra.Command{Use: "bgp", Short: "Show BGP sessions, the paths that peers sent, and what they are sent"}
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.network, "network", "", "only this network")
	flags.StringVar(&f.peer, "peer", "", "only the peer with this address")
	flags.StringVarP(&f.output, "output", "o", "table", "table or json")
	flags.StringVar(&f.socket, "socket", control.SocketPath(config.DefaultRunDir), "control socket of the daemon")
	peers := &cobra.Command{Use: "peers", Short: "Show sessions: state, capabilities, errors, counts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.peers(cmd) }}
	routes := &cobra.Command{Use: "routes", Short: "Show the paths that peers sent, and what became of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.routes(cmd) }}
	advertised := &cobra.Command{Use: "advertised", Short: "Show the prefixes that peers are sent, with their attributes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.advertised(cmd) }}
	for _, c := range []*cobra.Command{routes, advertised} {
		c.Flags().StringVar(&f.prefix, "prefix", "", "only this prefix, and all inside it")
	}
	cmd.AddCommand(peers, routes, advertised)
	return cmd
}

func (f *bgpFlags) filter() (bgp.Filter, error) {
	out := bgp.Filter{Network: f.network}
	var err error
	if f.peer != "" {
		if out.Peer, err = netip.ParseAddr(f.peer); err != nil {
			return out, fmt.Errorf("--peer %q: not an address", f.peer)
		}
	}
	if f.prefix != "" {
		if out.Prefix, err = control.ParsePrefix(f.prefix); err != nil {
			return out, fmt.Errorf("--prefix: %w", err)
		}
	}
	if f.output != "table" && f.output != "json" {
		return out, fmt.Errorf("--output %q: use table or json", f.output)
	}
	return out, nil
}

// print writes v as JSON, or a table.
func (f *bgpFlags) print(out io.Writer, v any, header string, rows func(w io.Writer)) error {
	if f.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, header)
	rows(w)
	return w.Flush()
}

// peerRow is one session and the network it belongs to.
type peerRow struct {
	Network string `json:"network"`
	egress.PeerStatus
}

func (f *bgpFlags) peers(cmd *cobra.Command) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	s, err := control.NewClient(f.socket).Status(cmd.Context())
	if err != nil {
		return err
	}
	rows := peerRows(s, filter)
	return f.print(cmd.OutOrStdout(), rows, peerHeader, func(w io.Writer) { printPeers(w, rows, time.Now()) })
}

func peerRows(s *egress.Status, f bgp.Filter) []peerRow {
	rows := []peerRow{}
	for _, n := range s.Networks {
		for _, p := range n.Peers {
			if (f.Network == "" || f.Network == n.Name) && (!f.Peer.IsValid() || f.Peer == p.Address) {
				rows = append(rows, peerRow{n.Name, p})
			}
		}
	}
	if c := s.ClientBGP; c != nil {
		for _, p := range c.Peers {
			if (f.Network == "" || f.Network == egress.ClientsNetwork) && (!f.Peer.IsValid() || f.Peer == p.Address) {
				rows = append(rows, peerRow{egress.ClientsNetwork, p})
			}
		}
	}
	return rows
}

const peerHeader = "NETWORK\tPEER\tAS\tSTATE\tFOR\tRECEIVED\tACCEPTED\tADVERTISED\tFLAPS\tCAPABILITIES\tNOTES"

func printPeers(w io.Writer, rows []peerRow, now time.Time) {
	for _, p := range rows {
		var notes []string
		for _, note := range []string{p.Description, p.Warning} {
			if note != "" {
				notes = append(notes, note)
			}
		}
		switch {
		case p.Shutdown:
			notes = append(notes, "shut down by the configuration")
		case p.LastError != "":
			notes = append(notes, "last error: "+p.LastError)
		}
		if p.ImportMissing {
			notes = append(notes, "no import list: nothing is accepted")
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", p.Network, p.Address, p.ASN, p.State, age(now, p.Since),
			p.Received, p.Accepted, p.Advertised, p.Flaps, dash(strings.Join(p.Capabilities, ",")), dash(strings.Join(notes, "; ")))
	}
}

func (f *bgpFlags) routes(cmd *cobra.Command) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	paths, err := control.NewClient(f.socket).Paths(cmd.Context(), filter)
	if err != nil {
		return err
	}
	return f.print(cmd.OutOrStdout(), paths, pathHeader, func(w io.Writer) { printPaths(w, paths) })
}

const pathHeader = "NETWORK\tPREFIX\tPEER\tNEXT HOP\tSTATE\tPREFERENCE\tMED\tAS PATH\tCOMMUNITIES"

func printPaths(w io.Writer, paths []bgp.Path) {
	for _, p := range paths {
		state := "refused"
		switch {
		case p.Best:
			state = "best"
		case p.Accepted:
			state = "accepted"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", p.Network, p.Prefix, p.Peer, p.NextHop, state,
			p.LocalPref, p.MED, dash(p.ASPath), dash(strings.Join(p.Communities, ",")))
	}
}

func (f *bgpFlags) advertised(cmd *cobra.Command) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	sent, err := control.NewClient(f.socket).Advertised(cmd.Context(), filter)
	if err != nil {
		return err
	}
	return f.print(cmd.OutOrStdout(), sent, sentHeader, func(w io.Writer) { printAdvertised(w, sent) })
}

const sentHeader = "NETWORK\tPREFIX\tPEER\tNEXT HOP\tMED\tPREFERENCE\tPREPEND\tCOMMUNITIES"

func printAdvertised(w io.Writer, sent []bgp.AdvertisedPath) {
	number := func(n *uint32) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	for _, p := range sent {
		hop := "self"
		if p.NextHop.IsValid() {
			hop = p.NextHop.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", p.Network, p.Prefix, p.Peer, hop,
			number(p.MED), number(p.LocalPref), p.Prepend, dash(strings.Join(p.Communities, ",")))
	}
}
