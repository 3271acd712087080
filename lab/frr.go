package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// frr runs FRR with its default paths, which are private to the namespace.
type frr struct{}

const frrRun = "/run/frr"

func (frr) text(c RouterConfig) string { return c.FRR() }

func (d frr) start(ns *NS, c RouterConfig) ([]*Proc, error) {
	dir := ns.Path(frrRun)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	uid, gid, err := lookupUser("frr")
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return nil, err
	}
	if err := writeFile(dir+"/zebra.conf", "log stdout informational\n"); err != nil {
		return nil, err
	}
	if err := writeFile(dir+"/bgpd.conf", d.text(c)); err != nil {
		return nil, err
	}
	var procs []*Proc
	for _, name := range []string{"zebra", "bgpd"} {
		p, err := startFRRDaemon(ns, name)
		if p != nil {
			procs = append(procs, p)
		}
		if err != nil {
			return procs, err
		}
	}
	if len(c.BFD) == 0 {
		return procs, nil
	}
	p, err := startBFDD(ns, c)
	if p != nil {
		procs = append(procs, p)
	}
	return procs, err
}

func startFRRDaemon(ns *NS, name string) (*Proc, error) {
	// Port 0 is "no TCP port for the terminal".
	args := []string{frrDir + "/" + name, "-f", frrRun + "/" + name + ".conf", "-P", "0", "--vty_socket", frrRun}
	return startDaemon(ns, name, args, func() error {
		_, err := vtyDialog(ns.lab.ctx, ns.Path(frrRun+"/"+name+".vty"), []string{"show version"})
		return err
	})
}

func lookupUser(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// command passes every argument as one line to bgpd.
func (frr) command(ns *NS, lines ...string) (string, error) {
	return vtyDialog(ns.lab.ctx, ns.Path(frrRun+"/bgpd.vty"), lines)
}

func (d frr) change(ns *NS, from, to RouterConfig) error {
	lines := []string{"configure terminal"}
	// Prefix lists first, or new prefixes would be refused for a moment.
	for _, f := range Families() {
		ip := map[Family]string{IPv4: "ip", IPv6: "ipv6"}[f]
		lines = append(lines, fmt.Sprintf("no %s prefix-list announce%s", ip, f.suffix()))
		for _, p := range to.of(f).Announce {
			lines = append(lines, fmt.Sprintf("%s prefix-list announce%s permit %s", ip, f.suffix(), p))
		}
		lines = append(lines, fmt.Sprintf("%s prefix-list announce%s deny any", ip, f.suffix()))
	}
	lines = append(lines, fmt.Sprintf("router bgp %d", to.ASN))
	for _, f := range Families() {
		lines = append(lines, fmt.Sprintf("address-family %s unicast", f))
		for _, p := range from.of(f).Announce {
			if !slices.Contains(to.Announce, p) {
				lines = append(lines, "no network "+p.String())
			}
		}
		for _, p := range to.of(f).Announce {
			if !slices.Contains(from.Announce, p) {
				lines = append(lines, "network "+p.String())
			}
		}
		lines = append(lines, "exit-address-family")
	}
	_, err := d.command(ns, lines...)
	return err
}

func (d frr) routes(ns *NS, f Family) (map[netip.Prefix][]netip.Addr, error) {
	text, err := d.command(ns, fmt.Sprintf("show bgp %s unicast json", f))
	if err != nil {
		return nil, err
	}
	return parseFRRRoutes([]byte(text))
}

// parseFRRRoutes reads `show bgp ... json`, without the router's own prefixes,
// whose next hop is unspecified, and without the link-local address that
// accompanies a global one.
func parseFRRRoutes(text []byte) (map[netip.Prefix][]netip.Addr, error) {
	var table struct {
		Routes map[netip.Prefix][]struct {
			Valid    bool `json:"valid"`
			Nexthops []struct {
				IP    netip.Addr `json:"ip"`
				Scope string     `json:"scope"`
			} `json:"nexthops"`
		} `json:"routes"`
	}
	// Without a BGP table FRR 8.4 prints a warning object, or nothing.
	if len(strings.TrimSpace(string(text))) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(text, &table); err != nil {
		return nil, fmt.Errorf("parse routes of FRR: %w", err)
	}
	routes := map[netip.Prefix][]netip.Addr{}
	for prefix, paths := range table.Routes {
		for _, path := range paths {
			for _, hop := range path.Nexthops {
				if path.Valid && hop.IP.IsValid() && !hop.IP.IsUnspecified() && hop.Scope != "link-local" {
					routes[prefix] = append(routes[prefix], hop.IP)
				}
			}
		}
	}
	return routes, nil
}

func (d frr) filtered(ns *NS, f Family, peers []RouterPeer) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, p := range peers {
		text, err := d.command(ns, fmt.Sprintf("show bgp %s unicast neighbors %s filtered-routes json", f, p.Address))
		if err != nil {
			return nil, err
		}
		prefixes, err := parseFRRFiltered([]byte(text))
		if err != nil {
			return nil, err
		}
		all = append(all, prefixes...)
	}
	return all, nil
}

// parseFRRFiltered reads `show bgp neighbors ... filtered-routes json`, which
// is an object of routes, or one with a warning if the peer never came up.
func parseFRRFiltered(text []byte) ([]netip.Prefix, error) {
	var table struct {
		Filtered map[netip.Prefix]json.RawMessage `json:"filteredRoutes"`
		Received map[netip.Prefix]json.RawMessage `json:"receivedRoutes"`
	}
	if err := json.Unmarshal(text, &table); err != nil {
		return nil, fmt.Errorf("parse filtered routes of FRR: %w", err)
	}
	var prefixes []netip.Prefix
	for _, routes := range []map[netip.Prefix]json.RawMessage{table.Filtered, table.Received} {
		for p := range routes {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes, nil
}

func (d frr) state(ns *NS, peer netip.Addr) (string, error) {
	text, err := d.command(ns, fmt.Sprintf("show bgp neighbors %s json", peer))
	if err != nil {
		return "", err
	}
	return parseFRRState([]byte(text), peer)
}

func parseFRRState(text []byte, peer netip.Addr) (string, error) {
	var neighbors map[string]json.RawMessage
	if err := json.Unmarshal(text, &neighbors); err != nil {
		return "", fmt.Errorf("parse neighbors of FRR: %w", err)
	}
	var neighbor struct {
		State string `json:"bgpState"`
	}
	raw, ok := neighbors[peer.String()]
	if !ok {
		return "", fmt.Errorf("no neighbor %s", peer)
	}
	if err := json.Unmarshal(raw, &neighbor); err != nil {
		return "", fmt.Errorf("parse neighbor %s of FRR: %w", peer, err)
	}
	return neighbor.State, nil
}
