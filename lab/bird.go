package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// bird runs BIRD with a control socket in the namespace's /run.
type bird struct{}

const (
	birdSocket = "/run/bird.ctl"
	birdConfig = "/run/bird.conf"
)

func (bird) text(c RouterConfig) string { return c.BIRD() }

func (d bird) start(ns *NS, c RouterConfig) ([]*Proc, error) {
	if err := writeFile(ns.Path(birdConfig), d.text(c)); err != nil {
		return nil, err
	}
	p, err := startDaemon(ns, "bird", []string{"bird", "-f", "-c", birdConfig, "-s", birdSocket}, func() error {
		_, err := d.command(ns, "show", "status")
		return err
	})
	if p == nil {
		return nil, err
	}
	return []*Proc{p}, err
}

// command joins the words to one command.
func (bird) command(ns *NS, words ...string) (string, error) {
	return birdDialog(ns.lab.ctx, ns.Path(birdSocket), strings.Join(words, " "))
}

func (d bird) change(ns *NS, _, to RouterConfig) error {
	if err := writeFile(ns.Path(birdConfig), to.BIRD()); err != nil {
		return err
	}
	out, err := d.command(ns, "configure")
	if err == nil && !strings.Contains(out, "Reconfigur") {
		err = fmt.Errorf("configure: %s", strings.TrimSpace(out))
	}
	return err
}

func (d bird) routes(ns *NS, f Family) (map[netip.Prefix][]netip.Addr, error) {
	text, err := d.command(ns, "show", "route", "table", "master"+f.suffix(), "where", "source", "=", "RTS_BGP")
	if err != nil {
		return nil, err
	}
	return parseBIRDRoutes(text)
}

func (d bird) filtered(ns *NS, f Family, _ []RouterPeer) ([]netip.Prefix, error) {
	text, err := d.command(ns, "show", "route", "filtered", "table", "master"+f.suffix())
	if err != nil {
		return nil, err
	}
	routes, err := parseBIRDRoutes(text)
	var prefixes []netip.Prefix
	for p := range routes {
		prefixes = append(prefixes, p)
	}
	return prefixes, err
}

// parseBIRDRoutes reads `show route`: a line per path, which starts with the
// prefix or, for its further paths, with blanks; then an indented line "via
// ADDRESS on DEVICE" per next hop.
func parseBIRDRoutes(text string) (map[netip.Prefix][]netip.Addr, error) {
	routes := map[netip.Prefix][]netip.Addr{}
	var current netip.Prefix
	for line := range strings.SplitSeq(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "BIRD" || words[0] == "Table" {
			continue
		}
		if words[0] == "via" && len(words) > 1 {
			hop, err := netip.ParseAddr(words[1])
			if err != nil || !current.IsValid() {
				return nil, fmt.Errorf("parse routes of BIRD: line %q", line)
			}
			if !slices.Contains(routes[current], hop) {
				routes[current] = append(routes[current], hop)
			}
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		prefix, err := netip.ParsePrefix(words[0])
		if err != nil {
			return nil, fmt.Errorf("parse routes of BIRD: line %q", line)
		}
		current = prefix
		routes[current] = nil
	}
	return routes, nil
}

func (d bird) state(ns *NS, peer netip.Addr) (string, error) {
	text, err := d.command(ns, "show", "protocols", "all")
	if err != nil {
		return "", err
	}
	return parseBIRDState(text, peer)
}

// parseBIRDState reads `show protocols all`, where each BGP protocol has the
// lines "BGP state:" and "Neighbor address:", in this order.
func parseBIRDState(text string, peer netip.Addr) (string, error) {
	state := ""
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "BGP state":
			state = value
		case "Neighbor address":
			if a, err := netip.ParseAddr(value); err == nil && a == peer {
				if state == "Down" { // of a protocol that is disabled
					state = "Idle"
				}
				return state, nil
			}
		}
	}
	return "", fmt.Errorf("no neighbor %s", peer)
}
