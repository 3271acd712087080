package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A view is what an upstream router knows of the gateway.
type view struct {
	// Learned are the prefixes in its RIBs that came from a BGP neighbour, sorted.
	Learned []netip.Prefix
	// Sessions are the established BGP sessions by peer.
	Sessions map[string]session
}

// A session tells what a router keeps of an established session: FRR how often
// it came up and went down, BIRD the time of day at which it came up.
type session struct {
	up, down int
	since    time.Duration
}

// clockJitter is how much BIRD's text for one and the same moment may differ:
// it is converted from a monotonic clock each time (2 ms were seen).
const clockJitter = time.Second

// lostSince reports sessions that are not those of an earlier view. The earlier
// view is to be taken longer than clockJitter after they came up.
func (v view) lostSince(earlier view) error {
	var errs []error
	for peer, was := range earlier.Sessions {
		is, ok := v.Sessions[peer]
		if !ok || is.up != was.up || is.down != was.down || (is.since-was.since).Abs() > clockJitter {
			errs = append(errs, fmt.Errorf("session %s was lost: %+v became %+v", peer, was, is))
		}
	}
	return errors.Join(errs...)
}

// A router is an upstream router of the topology.
type router interface {
	view(ctx context.Context) (view, error)
}

// frr is a node with FRR 8.
type frr struct {
	lab  *lab
	node string
}

func (r frr) view(ctx context.Context) (view, error) {
	out, err := r.lab.exec(ctx, r.node, "vtysh",
		"-c", "show bgp ipv4 unicast json", "-c", "show bgp ipv6 unicast json", "-c", "show bgp neighbors json")
	if err != nil {
		return view{}, err
	}
	return parseFRR(out)
}

// frrTable is FRR's "show bgp <family> unicast json".
type frrTable struct {
	Routes map[string][]struct {
		PeerID string `json:"peerId"` // "(unspec)" for its own
	} `json:"routes"`
}

// frrNeighbor is an entry of FRR's "show bgp neighbors json".
type frrNeighbor struct {
	State       string `json:"bgpState"`
	Established int    `json:"connectionsEstablished"`
	Dropped     int    `json:"connectionsDropped"`
}

// parseFRR reads two tables and the neighbours, one JSON document after the other.
func parseFRR(out string) (view, error) {
	v := view{Sessions: map[string]session{}}
	documents := json.NewDecoder(strings.NewReader(out))
	for range 2 {
		var table frrTable
		if err := documents.Decode(&table); err != nil {
			return view{}, fmt.Errorf("parse FRR's routes: %w in %q", err, out)
		}
		for text, paths := range table.Routes {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return view{}, fmt.Errorf("parse FRR's routes: %w", err)
			}
			for _, path := range paths {
				if path.PeerID != "(unspec)" {
					v.Learned = append(v.Learned, prefix)
				}
			}
		}
	}
	var neighbors map[string]frrNeighbor
	if err := documents.Decode(&neighbors); err != nil {
		return view{}, fmt.Errorf("parse FRR's neighbors: %w in %q", err, out)
	}
	for peer, n := range neighbors {
		if n.State == "Established" {
			v.Sessions[peer] = session{up: n.Established, down: n.Dropped}
		}
	}
	slices.SortFunc(v.Learned, netip.Prefix.Compare)
	return v, nil
}

// bird is a node with BIRD 2.
type bird struct {
	lab  *lab
	node string
}

func (r bird) view(ctx context.Context) (view, error) {
	protocols, err := r.lab.exec(ctx, r.node, "birdc", "show", "protocols")
	if err != nil {
		return view{}, err
	}
	routes, err := r.lab.exec(ctx, r.node, "birdc", "show", "route", "where", "source = RTS_BGP")
	if err != nil {
		return view{}, err
	}
	return parseBIRD(protocols, routes)
}

// parseBIRD reads birdc's tables: a protocol per line with name, type, table,
// state, since and info; a route per line that begins with its prefix.
func parseBIRD(protocols, routes string) (view, error) {
	v := view{Sessions: map[string]session{}}
	for line := range strings.Lines(protocols) {
		words := strings.Fields(line)
		if len(words) >= 6 && words[1] == "BGP" && words[5] == "Established" {
			since, err := time.Parse("15:04:05.999", words[4])
			if err != nil {
				return view{}, fmt.Errorf("parse BIRD's protocol %q: %w", line, err)
			}
			v.Sessions[words[0]] = session{since: since.Sub(since.Truncate(24 * time.Hour))}
		}
	}
	for line := range strings.Lines(routes) {
		words := strings.Fields(line)
		if len(words) == 0 || !strings.Contains(words[0], "/") {
			continue
		}
		prefix, err := netip.ParsePrefix(words[0])
		if err != nil {
			return view{}, fmt.Errorf("parse BIRD's route %q: %w", line, err)
		}
		v.Learned = append(v.Learned, prefix)
	}
	slices.SortFunc(v.Learned, netip.Prefix.Compare)
	return v, nil
}

// wants reports how v differs from a router with two sessions that learned
// exactly these prefixes.
func (v view) wants(learned ...netip.Prefix) error {
	if len(v.Sessions) != 2 {
		return fmt.Errorf("BGP sessions established: %v, want 2", slices.Sorted(maps.Keys(v.Sessions)))
	}
	slices.SortFunc(learned, netip.Prefix.Compare)
	if !slices.Equal(v.Learned, learned) {
		return fmt.Errorf("learned %v, want %v", v.Learned, learned)
	}
	return nil
}
