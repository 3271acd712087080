package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A RouterBFD is a BFD session of a router, beside those of its routing
// protocols. With BIRD, which has timers and keys per device only, the last of
// a device decides for all of them, and so does the last that is multihop.
type RouterBFD struct {
	Peer, Local netip.Addr // both are needed
	// Device is needed for a single hop.
	Device   string
	Multihop bool
	MinTTL   uint8 // FRR's minimum-ttl, for multihop
	Interval time.Duration
	Mult     int // 3 if 0
	Passive  bool
	// Password is for BIRD, and PasswordAlgo its authentication: "simple", "keyed
	// sha1" or "meticulous keyed sha1".
	Password, PasswordAlgo string
}

func (s RouterBFD) mult() int {
	if s.Mult == 0 {
		return 3
	}
	return s.Mult
}

// A BFDSession is what a router thinks of a session.
type BFDSession struct {
	Peer     netip.Addr
	Device   string
	Multihop bool
	// State is Up, Down, Init or AdminDown.
	State string
	// Diag and RemoteDiag are FRR's words, "ok" for none; BIRD does not tell.
	Diag, RemoteDiag string
	// Interval is between the router's own packets and Timeout its detection time:
	// BIRD's words. Remote is what FRR has heard last: desired min tx and required min rx.
	Interval, Timeout  time.Duration
	RemoteTx, RemoteRx time.Duration
	// Since is BIRD's text of when the state changed, FRR has Uptime in seconds.
	Since  string
	Uptime int
}

// frrBFD is the configuration of bfdd.
func (c RouterConfig) frrBFD() string {
	var b strings.Builder
	b.WriteString("log stdout informational\nbfd\n")
	for _, s := range c.BFD {
		fmt.Fprintf(&b, " %s\n  detect-multiplier %d\n  receive-interval %[3]d\n  transmit-interval %[3]d\n",
			s.frrPeer(), s.mult(), s.Interval.Milliseconds())
		if s.MinTTL != 0 {
			fmt.Fprintf(&b, "  minimum-ttl %d\n", s.MinTTL)
		}
		if s.Passive {
			b.WriteString("  passive-mode\n")
		}
		b.WriteString(" exit\n")
	}
	b.WriteString("exit\n")
	return b.String()
}

// frrPeer is the line that names a session.
func (s RouterBFD) frrPeer() string {
	line := "peer " + s.Peer.WithZone("").String()
	if s.Multihop {
		line += " multihop"
	}
	if s.Local.IsValid() {
		line += " local-address " + s.Local.WithZone("").String()
	}
	if !s.Multihop {
		line += " interface " + s.Device
	}
	return line
}

// birdBFD is a protocol bfd, or nothing.
func (c RouterConfig) birdBFD(b *strings.Builder) {
	if len(c.BFD) == 0 {
		return
	}
	options := map[string]string{}
	var neighbors strings.Builder
	for _, s := range c.BFD {
		where := fmt.Sprintf("interface %q", s.Device)
		peer := s.Peer.WithZone("").String()
		if s.Multihop {
			where = "multihop"
			fmt.Fprintf(&neighbors, "  neighbor %s local %s multihop yes;\n", peer, s.Local)
		} else {
			fmt.Fprintf(&neighbors, "  neighbor %s dev %q local %s;\n", peer, s.Device, s.Local.WithZone(""))
		}
		text := fmt.Sprintf("interval %[1]d ms; idle tx interval 1 s; multiplier %[2]d; passive %[3]t;", s.Interval.Milliseconds(), s.mult(), s.Passive)
		if s.Password != "" {
			text += fmt.Sprintf(" authentication %s; password %q { id 1; };", s.PasswordAlgo, s.Password)
		}
		options[where] = strings.NewReplacer("true", "yes", "false", "no").Replace(text)
	}
	b.WriteString("protocol bfd {\n  debug { events };\n")
	for _, where := range slices.Sorted(maps.Keys(options)) {
		fmt.Fprintf(b, "  %s { %s };\n", where, options[where])
	}
	b.WriteString(neighbors.String() + "}\n")
}

// BFDSessions asks the router for its BFD sessions.
func (r *Router) BFDSessions() ([]BFDSession, error) {
	sessions, err := r.daemon.bfd(r.NS)
	if err != nil {
		return nil, fmt.Errorf("bfd sessions of %s in %q: %w", r.Kind, r.NS.Name, err)
	}
	return sessions, nil
}

// BFDSession is the session with a peer, whose zone does not matter.
func (r *Router) BFDSession(peer netip.Addr, multihop bool) (BFDSession, error) {
	sessions, err := r.BFDSessions()
	if err != nil {
		return BFDSession{}, err
	}
	for _, s := range sessions {
		if s.Peer == peer.WithZone("") && s.Multihop == multihop {
			return s, nil
		}
	}
	return BFDSession{}, fmt.Errorf("%s in %q has no bfd session with %s", r.Kind, r.NS.Name, peer)
}

// ShutBFD takes FRR's side of a session administratively down, or up again.
func (r *Router) ShutBFD(s RouterBFD, down bool) error {
	if r.Kind != "frr" {
		return errors.New("only FRR has sessions that are administratively down")
	}
	line := "shutdown"
	if !down {
		line = "no shutdown"
	}
	_, err := vtyDialog(r.NS.lab.ctx, r.NS.Path(frrRun+"/bfdd.vty"), []string{"configure terminal", "bfd", s.frrPeer(), line})
	return err
}

// startBFDD starts FRR's bfdd.
func startBFDD(ns *NS, c RouterConfig) (*Proc, error) {
	if err := os.WriteFile(ns.Path(frrRun+"/bfdd.conf"), []byte(c.frrBFD()), 0o644); err != nil {
		return nil, err
	}
	return startFRRDaemon(ns, "bfdd")
}

func (frr) bfd(ns *NS) ([]BFDSession, error) {
	text, err := vtyDialog(ns.lab.ctx, ns.Path(frrRun+"/bfdd.vty"), []string{"show bfd peers json"})
	if err != nil {
		return nil, err
	}
	return parseFRRBFD([]byte(text))
}

func parseFRRBFD(text []byte) ([]BFDSession, error) {
	var peers []struct {
		Peer       netip.Addr `json:"peer"`
		Interface  string     `json:"interface"`
		Multihop   bool       `json:"multihop"`
		Status     string     `json:"status"`
		Uptime     int        `json:"uptime"`
		Diag       string     `json:"diagnostic"`
		RemoteDiag string     `json:"remote-diagnostic"`
		RemoteTx   int        `json:"remote-transmit-interval"`
		RemoteRx   int        `json:"remote-receive-interval"`
	}
	if err := json.Unmarshal(text, &peers); err != nil {
		return nil, fmt.Errorf("parse bfd peers of FRR: %w", err)
	}
	words := map[string]string{"up": "Up", "down": "Down", "init": "Init", "shutdown": "AdminDown"}
	var sessions []BFDSession
	for _, p := range peers {
		state, known := words[p.Status]
		if !known {
			return nil, fmt.Errorf("parse bfd peers of FRR: status %q", p.Status)
		}
		sessions = append(sessions, BFDSession{Peer: p.Peer, Device: p.Interface, Multihop: p.Multihop, State: state, Diag: p.Diag, RemoteDiag: p.RemoteDiag,
			RemoteTx: time.Duration(p.RemoteTx) * time.Millisecond, RemoteRx: time.Duration(p.RemoteRx) * time.Millisecond, Uptime: p.Uptime})
	}
	return sessions, nil
}

func (d bird) bfd(ns *NS) ([]BFDSession, error) {
	text, err := d.command(ns, "show", "bfd", "sessions")
	if err != nil {
		return nil, err
	}
	return parseBIRDBFD(text)
}

// parseBIRDBFD reads `show bfd sessions`: a line with the protocol's name, one
// with the columns, and one for each session.
func parseBIRDBFD(text string) ([]BFDSession, error) {
	var sessions []BFDSession
	for line := range strings.SplitSeq(text, "\n") {
		words := strings.Fields(line)
		if len(words) < 6 || words[0] == "IP" {
			continue
		}
		peer, err := netip.ParseAddr(words[0])
		if err != nil {
			return nil, fmt.Errorf("parse bfd sessions of BIRD: line %q", line)
		}
		// The time of the change may have two words.
		last := len(words) - 1
		var seconds [2]float64
		for i := range seconds {
			if seconds[i], err = strconv.ParseFloat(words[last-1+i], 64); err != nil {
				return nil, fmt.Errorf("parse bfd sessions of BIRD: line %q", line)
			}
		}
		sessions = append(sessions, BFDSession{Peer: peer, Device: words[1], Multihop: words[1] == "---", State: words[2], Since: strings.Join(words[3:last-1], " "),
			Interval: time.Duration(seconds[0] * float64(time.Second)), Timeout: time.Duration(seconds[1] * float64(time.Second))})
	}
	return sessions, nil
}
