package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// ExaBGPConfig is what an ExaBGP announces, and to whom.
type ExaBGPConfig struct {
	ASN      uint32
	RouterID netip.Addr
	// Sessions have an address of ours each.
	Sessions []ExaBGPSession
}

// An ExaBGPSession is with one neighbour, with the family of its address.
type ExaBGPSession struct {
	Local, Peer netip.Addr
	PeerASN     uint32
	Password    string
	// Routes are lines of a static section: "10.0.0.0/24 next-hop self med 5".
	Routes []string
}

// An ExaSpeaker is a running ExaBGP, the third implementation after FRR and BIRD: it
// keeps no table and forwards nothing, but tells every message it gets.
type ExaSpeaker struct {
	ns   *NS
	proc *Proc
}

const (
	exaConfig   = "/run/exabgp.conf"
	exaScript   = "/run/exabgp.py"
	exaMessages = "/run/exabgp.json"
)

// exaLogger keeps what it is told. Its input does not block, as cat(1) would want.
const exaLogger = `#!/usr/bin/python3
import os, select
out = open("` + exaMessages + `", "ab", 0)
while True:
    select.select([0], [], [])
    data = os.read(0, 65536)
    if not data:
        break
    out.write(data)
`

// StartExaBGP starts it in a namespace. See Feature ExaBGP.
func StartExaBGP(ns *NS, c ExaBGPConfig) (*ExaSpeaker, error) {
	files := map[string]string{exaConfig: c.text(), exaMessages: "", exaScript: exaLogger}
	for name, text := range files {
		if err := writeFile(ns.Path(name), text); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(ns.Path(exaScript), 0o755); err != nil {
		return nil, err
	}
	p, err := ns.Start("exabgp", "env", "exabgp.daemon.user=root", "exabgp.api.cli=false", "exabgp.tcp.bind=", "exabgp.log.destination=stderr",
		"exabgp.api.ack=false", "exabgp", exaConfig)
	return &ExaSpeaker{ns, p}, err
}

func (c ExaBGPConfig) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "process log {\n  run %s;\n  encoder json;\n}\n", exaScript)
	for _, s := range c.Sessions {
		family := "ipv4"
		if s.Peer.Is6() {
			family = "ipv6"
		}
		fmt.Fprintf(&b, "neighbor %s {\n  router-id %s;\n  local-address %s;\n  local-as %d;\n  peer-as %d;\n  hold-time 30;\n", s.Peer, c.RouterID, s.Local, c.ASN, s.PeerASN)
		if s.Password != "" {
			fmt.Fprintf(&b, "  md5-password %q;\n", s.Password)
		}
		fmt.Fprintf(&b, "  family { %s unicast; }\n  api { processes [ log ]; neighbor-changes; receive { parsed; update; } }\n  static {\n", family)
		for _, r := range s.Routes {
			fmt.Fprintf(&b, "    route %s;\n", r)
		}
		b.WriteString("  }\n}\n")
	}
	return b.String()
}

// Log is what it wrote.
func (e *ExaSpeaker) Log() string { return e.proc.Log() }

// ExaBGPView is what it was told in all its sessions, since it started.
type ExaBGPView struct {
	// Routes are those announced and not withdrawn since, by prefix.
	Routes map[netip.Prefix]ExaBGPRoute
	// Ups and Downs count changes of sessions.
	Ups, Downs int
}

// ExaBGPRoute is one announcement.
type ExaBGPRoute struct {
	NextHop     string
	ASPath      []uint32
	MED         *uint32
	Communities []string // "64512:7", large ones with three numbers
}

type exaMessage struct {
	Type     string `json:"type"`
	Neighbor struct {
		State   string `json:"state"`
		Message struct {
			Update struct {
				Attribute struct {
					ASPath    json.RawMessage `json:"as-path"`
					MED       *uint32         `json:"med"`
					Community [][]uint32      `json:"community"`
					Large     [][]uint32      `json:"large-community"`
				} `json:"attribute"`
				Announce map[string]map[string][]struct {
					NLRI string `json:"nlri"`
				} `json:"announce"`
				Withdraw map[string][]struct {
					NLRI string `json:"nlri"`
				} `json:"withdraw"`
			} `json:"update"`
		} `json:"message"`
	} `json:"neighbor"`
}

// View reads all messages so far.
func (e *ExaSpeaker) View() (ExaBGPView, error) {
	v := ExaBGPView{Routes: map[netip.Prefix]ExaBGPRoute{}}
	if !e.proc.Running() {
		return v, Final(errors.New("exabgp has ended: " + tail(e.proc.Log(), 20)))
	}
	text, err := os.ReadFile(e.ns.Path(exaMessages))
	if err != nil {
		return v, err
	}
	lines := strings.Split(string(text), "\n")
	for _, line := range lines[:len(lines)-1] {
		var m exaMessage
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			return v, fmt.Errorf("message of exabgp: %w: %s", err, line)
		}
		if err := v.take(m); err != nil {
			return v, fmt.Errorf("message of exabgp: %w: %s", err, line)
		}
	}
	return v, nil
}

func (v *ExaBGPView) take(m exaMessage) error {
	switch m.Type {
	case "state":
		switch m.Neighbor.State {
		case "up":
			v.Ups++
		case "down":
			v.Downs++
		}
		return nil
	case "notification":
		return nil // it tells of its own
	}
	u := m.Neighbor.Message.Update
	for _, list := range u.Withdraw {
		for _, w := range list {
			p, err := netip.ParsePrefix(w.NLRI)
			if err != nil {
				return err
			}
			delete(v.Routes, p)
		}
	}
	path, err := exaPath(u.Attribute.ASPath)
	if err != nil {
		return err
	}
	for _, hops := range u.Announce {
		for hop, list := range hops {
			for _, a := range list {
				p, err := netip.ParsePrefix(a.NLRI)
				if err != nil {
					continue // End-of-RIB
				}
				r := ExaBGPRoute{NextHop: hop, ASPath: path, MED: u.Attribute.MED}
				for _, c := range slices.Concat(u.Attribute.Community, u.Attribute.Large) {
					r.Communities = append(r.Communities, strings.Trim(strings.ReplaceAll(fmt.Sprint(c), " ", ":"), "[]"))
				}
				v.Routes[p] = r
			}
		}
	}
	return nil
}

// exaPath reads a list of numbers, or of segments.
func exaPath(raw json.RawMessage) ([]uint32, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var path []uint32
	if json.Unmarshal(raw, &path) == nil {
		return path, nil
	}
	var segments map[string]struct {
		Value []uint32 `json:"value"`
	}
	if err := json.Unmarshal(raw, &segments); err != nil {
		return nil, err
	}
	for i := range len(segments) {
		path = append(path, segments[fmt.Sprint(i)].Value...)
	}
	return path, nil
}

// Sees polls until check accepts the view.
func (e *ExaSpeaker) Sees(tb interface {
	Helper()
	Fatal(...any)
}, patience time.Duration, what string, check func(ExaBGPView) error) {
	tb.Helper()
	if err := Poll(e.ns.lab.ctx, patience, what, func() error {
		v, err := e.View()
		if err == nil {
			err = check(v)
		}
		return err
	}); err != nil {
		tb.Fatal(err)
	}
}
