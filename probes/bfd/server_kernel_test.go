package bfd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/bfd"
)

// TestServerOutlivesItsClient: the process that stands for the daemon starts
// the server, is killed, and comes back. Neither FRR nor BIRD sees anything.
func TestServerOutlivesItsClient(t *testing.T) {
	l, gw, _ := newGateway(t, "frr", "bird")
	path := filepath.Join(l.Dir, "outlives.sock")
	var nets []*network
	var want []bfd.Config
	for i, kind := range []string{"frr", "bird"} {
		n := connect(t, l, gw, "red"+kind, i+1)
		nets = append(nets, n)
		want = append(want, n.sessions()...)
		n.start(kind, false, n.sessions())
	}
	// The server has to be its own, not the one of newGateway.
	daemon := startDaemon(t, gw, path, want)
	for _, n := range nets {
		n.theyAre("Up", n.sessions()...)
	}
	before := theirViews(t, nets)
	observer := bfd.NewClient(bfd.ClientOptions{Path: path, Log: slog.New(slog.DiscardHandler)})
	defer observer.Close(true)
	lab.Eventually(t, time.Minute, "the observer's view", func() error { return allUp(observer.State(), len(want)) })
	ours := observer.State()

	for range 3 {
		daemon.Kill9()
		in := packets(observer)
		lab.Eventually(t, time.Minute, "packets without the daemon", func() error {
			if now := packets(observer); now < in+uint64(20*len(want)) {
				return fmt.Errorf("%d, before %d", now, in)
			}
			return nil
		})
		daemon = startDaemon(t, gw, path, want)
	}
	for i, st := range observer.State() {
		if st.Status != bfd.Up || !st.Since.Equal(ours[i].Since) || st.Discriminator != ours[i].Discriminator {
			t.Errorf("disturbed: %+v, before %+v", st, ours[i])
		}
	}
	for name, was := range before {
		now := theirViews(t, nets)[name]
		if now.State != "Up" || now.Uptime < was.Uptime {
			t.Errorf("the peer of %s saw something: %+v, before %+v", name, now, was)
		}
	}
	if log := nets[1].router.Log(); strings.Contains(log, "from Up") || !strings.Contains(log, "to Up") {
		t.Errorf("BIRD saw something: %s", log)
	}
}

// startDaemon starts a client process and waits until its sessions are up.
func startDaemon(t *testing.T, ns *lab.NS, path string, want []bfd.Config) *lab.Proc {
	t.Helper()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	cmd := ns.Command(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), processEnv+"=client", pathEnv+"="+path, wantEnv+"="+string(text), lingerEnv+"=1m")
	proc, err := ns.StartCommand("daemon", cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.WaitFor(t.Context(), 2*time.Minute, "all up"); err != nil {
		t.Fatal(err)
	}
	return proc
}

func theirViews(t *testing.T, nets []*network) map[string]lab.BFDSession {
	t.Helper()
	views := map[string]lab.BFDSession{}
	for _, n := range nets {
		for _, c := range n.sessions() {
			views[c.Name] = n.theirs(c, "up", func(s lab.BFDSession) bool { return s.State == "Up" })
		}
	}
	return views
}

func packets(c *bfd.Client) uint64 {
	sum := uint64(0)
	for _, st := range c.State() {
		sum += st.In
	}
	return sum
}

// pair are two namespaces, each with a server and one session to the other.
type pair struct {
	l    *lab.Lab
	ns   [2]*lab.NS
	s    [2]*speaker
	ends [2]bfd.Config
}

func newPair(t *testing.T) *pair {
	t.Helper()
	lab.Require(t, lab.Root)
	p := &pair{l: lab.New(t)}
	for i := range p.ns {
		p.ns[i] = p.l.MustNamespace(fmt.Sprintf("end%d", i))
	}
	p.l.MustLink(p.ns[0], "p0", p.ns[1], "p0")
	for i, ns := range p.ns {
		ns.MustIP(fmt.Sprintf("addr add 172.16.0.%d/24 dev p0", i+1))
		p.s[i] = startSpeaker(t, p.l, ns)
		p.ends[i] = session("peer", "", fmt.Sprintf("172.16.0.%d", i+1), fmt.Sprintf("172.16.0.%d", 2-i))
	}
	return p
}

// TestStarvedProcess: one that gets no processor for longer than its detection
// time does not blame the peer, whose packets came meanwhile.
func TestStarvedProcess(t *testing.T) {
	p := newPair(t)
	p.ends[0].DetectMult = 255 // the peer's patience with us: 13 s
	p.ends[1].DetectMult = 60  // ours: 3 s
	for i, s := range p.s {
		s.set(p.ends[i])
	}
	p.s[0].await("peer", "up at 50 ms", func(st bfd.State) bool { return st.Status == bfd.Up && st.DetectTime == 3*time.Second })
	for range 2 {
		before := p.s[0].state("peer")
		if err := p.s[0].proc.Pause(); err != nil {
			t.Fatal(err)
		}
		pass(t, 5*time.Second)
		if err := p.s[0].proc.Resume(); err != nil {
			t.Fatal(err)
		}
		// Those of the pause, and some later ones.
		st := p.s[0].await("peer", "packets", func(st bfd.State) bool { return st.In > before.In+105 })
		if st.Status != bfd.Up || st.Downs != before.Downs {
			t.Errorf("went down: %+v", st)
		}
	}
}

// TestServerEndsAlone: without a client for the time Linger, and when it is
// asked to; both tell the peer that it is no failure.
func TestServerEndsAlone(t *testing.T) {
	p := newPair(t)
	p.s[1].set(p.ends[1])
	path := filepath.Join(p.l.Dir, "alone.sock")
	for name, keep := range map[string]bool{"linger": true, "quit": false} {
		if p.s[0].proc.Running() {
			if err := p.s[0].proc.Stop(); err != nil { // SIGTERM
				t.Fatal(err)
			}
		}
		proc := startServer(t, p.ns[0], path, time.Hour)
		c := bfd.NewClient(bfd.ClientOptions{Path: path, Log: slog.New(slog.DiscardHandler), Linger: 2 * time.Hour})
		if err := c.Set([]bfd.Config{p.ends[0]}); err != nil {
			t.Fatal(err)
		}
		c.SetLinger(300 * time.Millisecond)
		st := p.s[1].await("peer", "up", func(st bfd.State) bool { return st.Status == bfd.Up })
		if !st.RemoteIndependent {
			t.Errorf("bit C is not set: %+v", st)
		}
		if err := c.Close(keep); err != nil {
			t.Fatal(err)
		}
		if err := proc.Wait(t.Context()); err != nil {
			t.Errorf("%s: the server ended with %v", name, err)
		}
		p.s[1].await("peer", "told", func(st bfd.State) bool {
			return st.Diag == bfd.NeighborDown && st.RemoteStatus == bfd.AdminDown && st.RemoteDiag == bfd.AdministrativelyDown
		})
	}
}

// TestServerRestarts: a server that dies is replaced by one that gets the same
// sessions; meanwhile the client's states are stale, and told afterwards.
func TestServerRestarts(t *testing.T) {
	p := newPair(t)
	for i, s := range p.s {
		s.set(p.ends[i])
	}
	p.s[0].up("peer")
	first := p.s[0].state("peer").Discriminator
	p.s[0].proc.Kill9()
	lab.Eventually(t, time.Minute, "a stale state", func() error {
		if st := p.s[0].state("peer"); !st.Stale || st.Status != bfd.Up {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	p.s[1].await("peer", "down", func(st bfd.State) bool { return st.Diag == bfd.DetectionTimeExpired })
	p.s[0].proc = startServer(t, p.ns[0], p.s[0].path, time.Minute)
	st := p.s[0].await("peer", "up again", func(st bfd.State) bool { return st.Status == bfd.Up })
	if st.Discriminator == first {
		t.Error("the same discriminator")
	}
	lab.Eventually(t, time.Minute, "the client to be told", func() error {
		told := p.s[0].notified("peer")
		if last := told[len(told)-1]; last.Status != bfd.Up || last.Discriminator != st.Discriminator {
			return fmt.Errorf("%+v", told)
		}
		return nil
	})
}

// TestServerBearsItsClients: what they write, that they do not read, that they
// are many, and that there is a second server.
func TestServerBearsItsClients(t *testing.T) {
	p := newPair(t)
	for i, s := range p.s {
		s.set(p.ends[i])
	}
	p.s[0].up("peer")
	var open []net.Conn
	dial := func() net.Conn {
		c, err := net.Dial("unix", p.s[0].path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		t.Cleanup(func() { c.Close() })
		return c
	}
	for _, line := range []string{"\n", "not json\n", `{"set":[{"Name":7}]}` + "\n", `{"set":` + "\n"} {
		c := dial()
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil { // until it is hung up
			t.Errorf("%q: %v", line, err)
		}
	}
	for range 40 {
		dial() // they read nothing
	}
	hungUp := 0
	for _, c := range open[20:] {
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, _ := c.Read(make([]byte, 1)); n == 0 {
			hungUp++
		}
	}
	if hungUp < 20 {
		t.Errorf("only %d of 24 clients too many were hung up", hungUp)
	}
	second := startServer(t, p.ns[0], p.s[0].path, time.Minute)
	if err := second.Wait(t.Context()); err == nil {
		t.Error("a second server runs on the same socket")
	}
	if st := p.s[0].state("peer"); st.Stale || st.Status != bfd.Up || st.Downs != 0 {
		t.Errorf("disturbed: %+v", st)
	}
}
