package acceptance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab/traffic"
)

// installed makes the gateway run a copy of its own, which can be upgraded.
func (g *gateway) installed(t *testing.T) {
	t.Helper()
	g.path = filepath.Join(t.TempDir(), "egret")
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	g.install(t, path)
}

// install puts another program in the place of the gateway's, as a package
// manager does: what runs goes on with the old one.
func (g *gateway) install(t *testing.T, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatalf("the binary to install is missing (make test-vm builds it): %v", err)
	}
	fresh := g.path + ".new"
	if err := os.WriteFile(fresh, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, g.path); err != nil {
		t.Fatal(err)
	}
}

// nextBinary is the version to upgrade to.
func nextBinary() string {
	if path := os.Getenv("EGRET_NEXT_BIN"); path != "" {
		return path
	}
	return filepath.Join("..", "bin", "egret-next")
}

// restartsUnderBFD kills the daemon under traffic and starts it again, then
// restarts it in order, then upgrades it. All the while each packet comes
// back, no connection breaks, no router's BFD session leaves Up, and no
// router loses a pool.
func (g *gateway) restartsUnderBFD(t *testing.T) {
	t.Helper()
	version := func() string {
		s, err := g.status()
		if err != nil {
			t.Fatal(err)
		}
		return s.Version
	}
	before := version()
	sessions, ribs := g.watchSessions(), g.watchRIBs()
	stop, stopExchanges := g.streams(traffic.ICMP, clients...), g.exchanges()
	for _, how := range []struct {
		name string
		end  func()
	}{
		{"kill -9", func() { g.daemon.Kill9() }},
		{"a restart", func() { g.end(t) }},
		{"an upgrade", func() {
			g.install(t, nextBinary())
			if v := version(); v != before { // the new program asks the old daemon
				t.Errorf("version %s runs before the restart", v)
			}
			g.end(t)
		}},
	} {
		how.end()
		if out, err := g.Egret("plan", "--config", g.ConfigPath()); err != nil || out != "nothing to change\n" {
			t.Errorf("%s: plan while no daemon runs: %v\n%s", how.name, err, out)
		}
		g.start(withBFD("red", "blue"))
		g.up(options{})
		g.synced()
		g.sessionStatus(t)
		g.empty("after " + how.name)
		if strings.Contains(g.daemon.Log(), "operations=") {
			t.Errorf("%s: the new daemon changed the kernel:\n%s", how.name, g.daemon.Log())
		}
	}
	if after := version(); after != before+"-next" {
		t.Errorf("upgraded from version %s to %s", before, after)
	}
	sent := 0
	for c, r := range stop() {
		sent += r.Sent
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("%s lost %d of %d echo requests over three restarts: %+v", c, r.Lost, r.Sent, r.Gaps)
		}
	}
	for c, r := range stopExchanges() {
		if r.Broken || r.Exchanges == 0 {
			t.Errorf("%s: the connection broke after %d exchanges: %s", c, r.Exchanges, r.Error)
		}
	}
	t.Logf("%d echo requests over three restarts, from %s to %s", sent, before, version())
	for _, watch := range []func() error{sessions, ribs} {
		if err := watch(); err != nil {
			t.Error(err)
		}
	}
}

// end ends the daemon as a service manager does.
func (g *gateway) end(t *testing.T) {
	t.Helper()
	if err := g.daemon.Stop(); err != nil {
		t.Error(err)
	}
}
