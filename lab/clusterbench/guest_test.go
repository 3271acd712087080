//go:build bench

package clusterbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/lab"
)

// guest is the node n1 within the VM: a gateway's node, with pods as well.
type guest struct {
	t      *testing.T
	binary string
	dir    string // shared with the host
	roles  []*role
}

// role is a process of ours.
type role struct {
	name string
	cmd  *exec.Cmd
	log  string
}

// TestGuest is the part of TestGatewayFigures that runs in the VM.
func TestGuest(t *testing.T) {
	g := &guest{t: t, dir: os.Getenv(guestEnv)}
	if g.dir == "" {
		t.Skip("it is started by TestGatewayFigures")
	}
	var err error
	if g.binary, err = filepath.Abs("../../bin/egret"); err != nil {
		t.Fatal(err)
	}
	links := [][]string{{"link", "add", "eth9", "type", "dummy"}, {"link", "set", "eth9", "up"},
		{"addr", "add", "192.168.0.1/24", "dev", "eth9"}, {"addr", "add", "fd00:168::1/64", "dev", "eth9"}}
	for i := range networks {
		up := fmt.Sprintf("up%d", i)
		links = append(links, []string{"link", "add", up, "type", "dummy"}, []string{"link", "set", up, "up"})
	}
	for _, args := range links {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v %s", args, err, out)
		}
	}
	g.start("agent", "--inside", "10.96.0.0/16,fd00:96::/112", "--run-dir", "/run/egret-agent", "--state-dir", "/var/lib/egret-agent")
	g.start("gateway", "--state-dir", "/var/lib/egret-gateway")
	g.rest("at rest")
	if err := os.WriteFile(filepath.Join(g.dir, "rests"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Minute, "the storm", func() error {
		_, err := os.Stat(filepath.Join(g.dir, "storm"))
		return err
	})
	g.rest("after the storm")
}

func (g *guest) start(name string, args ...string) {
	g.t.Helper()
	r := &role{name: name, log: filepath.Join(g.t.TempDir(), name+".log")}
	file, err := os.Create(r.log)
	if err != nil {
		g.t.Fatal(err)
	}
	r.cmd = exec.Command(g.binary, append([]string{name, "--kubeconfig", filepath.Join(g.dir, "kubeconfig"), "--node", nodeName(1)}, args...)...)
	r.cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	r.cmd.Stdout, r.cmd.Stderr = file, file
	if err := errors.Join(r.cmd.Start(), file.Close()); err != nil {
		g.t.Fatal(err)
	}
	g.roles = append(g.roles, r)
	g.t.Cleanup(func() {
		if g.t.Failed() {
			text, _ := os.ReadFile(r.log)
			g.t.Logf("%s: ... %s", name, text[max(0, len(text)-4000):])
		}
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait() // it was killed
	})
}

// status is what both roles say of themselves.
func (g *guest) status() (router egress.Status, agent steer.Status, err error) {
	out, err := exec.Command(g.binary, "status", "--output", "json").Output()
	if err == nil {
		err = json.Unmarshal(out, &router)
	}
	if err != nil {
		return router, agent, fmt.Errorf("status of the gateway: %w", err)
	}
	answer, err := (&http.Client{Timeout: time.Minute}).Get("http://127.0.0.1:9645/v1/status")
	if err != nil {
		return router, agent, err
	}
	defer answer.Body.Close()
	return router, agent, json.NewDecoder(answer.Body).Decode(&agent)
}

// rest waits until both have no errors and nothing to do, and tells their memory.
func (g *guest) rest(when string) {
	g.t.Helper()
	var router egress.Status
	quiet, last := time.Now(), uint64(0)
	lab.Eventually(g.t, 20*time.Minute, "the roles to rest", func() error {
		s, agent, err := g.status()
		if err != nil {
			quiet = time.Now()
			return err
		}
		router = s
		if rounds := agent.Round.Rounds + router.Round.Operations; rounds != last {
			last, quiet = rounds, time.Now()
		}
		for _, n := range router.Networks {
			if n.Phase != egress.PhaseUp {
				return fmt.Errorf("%s is %s: %s", n.Name, n.Phase, n.Reason)
			}
		}
		if len(router.Networks) == 0 || len(router.Policies) == 0 || router.Round.LastError != "" || agent.Round.LastError != "" || agent.Clients == 0 {
			return fmt.Errorf("%d networks, %d policies, %q; agent: %d clients, %q", len(router.Networks), len(router.Policies), router.Round.LastError, agent.Clients, agent.Round.LastError)
		}
		if since := time.Since(quiet); since < 30*time.Second {
			return fmt.Errorf("something changed %v ago", since)
		}
		return nil
	})
	clients := 0
	for _, p := range router.Policies {
		clients += len(p.Clients)
	}
	g.t.Logf("FIGURE gateway node %s: %d networks, %d pools, %d policies with %d clients", when, len(router.Networks), len(router.Pools), len(router.Policies), clients)
	for _, r := range g.roles {
		text, err := os.ReadFile(r.log)
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Logf("FIGURE memory of a gateway node %s: %-10s %s", when, r.name, memory(r.cmd.Process.Pid, string(text)))
	}
}
