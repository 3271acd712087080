package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/lab"
)

// running is an Egret in some topology.
type running struct {
	t      *testing.T
	host   *lab.EgretHost
	daemon *lab.Proc
	// path is the program to run instead of the common copy, when not "".
	path string
}

// start starts the daemon; it does not wait.
func (g *running) start(config string) {
	g.t.Helper()
	path := g.path
	if path == "" {
		var err error
		if path, err = binary(); err != nil {
			g.t.Fatal(err)
		}
	}
	p, err := g.host.StartEgret(path, config)
	if err != nil {
		g.t.Fatal(err)
	}
	g.daemon = p
}

// status asks the daemon.
func (g *running) status() (*egress.Status, error) {
	out, err := g.host.Egret("status", "-o", "json")
	if err != nil {
		return nil, err
	}
	s := &egress.Status{}
	return s, json.Unmarshal([]byte(out), s)
}

// wait waits for the phases of networks.
func (g *running) wait(phases map[string]string) {
	g.t.Helper()
	lab.Eventually(g.t, patience, fmt.Sprint("phases ", phases), func() error {
		if !g.daemon.Running() {
			return lab.Final(errors.New("the daemon has ended:\n" + g.daemon.Log()))
		}
		s, err := g.status()
		if err != nil {
			return err
		}
		got, reasons := map[string]string{}, ""
		for _, n := range s.Networks {
			got[n.Name] = string(n.Phase)
			reasons += n.Name + ": " + n.Reason + "\n"
		}
		for name, phase := range phases {
			if got[name] != phase {
				return fmt.Errorf("phases %v\n%s%s", got, reasons, s.Round.LastError)
			}
		}
		return nil
	})
}

// empty waits until `egret plan` has nothing to change.
func (g *running) empty(when string) {
	g.t.Helper()
	before := ""
	lab.Eventually(g.t, patience, "an empty plan "+when, func() error {
		out, err := g.host.Egret("plan", "--config", g.host.ConfigPath())
		if err == nil && out != "nothing to change\n" {
			err = errors.New(out)
		}
		if err != nil && err.Error() != before {
			before = err.Error()
			g.t.Logf("%s: %s", when, before)
		}
		return err
	})
}

// reload writes the configuration, asks for a reload, and waits until it runs.
func (g *running) reload(t *testing.T, config string) {
	t.Helper()
	before, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.host.WriteConfig(config); err != nil {
		t.Fatal(err)
	}
	if err := g.daemon.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, patience, "the new configuration", func() error {
		s, err := g.status()
		if err != nil {
			return err
		}
		if !s.Config.LoadedAt.After(before.Config.LoadedAt) {
			return errors.New("still the old one " + s.Config.Error)
		}
		return nil
	})
	g.empty("after the reload")
}

// network is what the status says of one.
func (g *running) network(name string) (egress.NetworkStatus, error) {
	s, err := g.status()
	if err != nil {
		return egress.NetworkStatus{}, err
	}
	for _, n := range s.Networks {
		if n.Name == name {
			return n, nil
		}
	}
	return egress.NetworkStatus{}, errors.New("no network " + name)
}
