package bfd_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/bfd"
)

// contest are Egret and a BIRD, each with sessions to the same third router.
type contest struct {
	b          testing.TB
	l          *lab.Lab
	s          *speaker
	peer, bird *lab.Router
	ours       []bfd.Config
	theirs     []bfd.Config // of bird
}

// newContest has n sessions on each side, at 50 ms x 3.
func newContest(b testing.TB, n int) *contest {
	b.Helper()
	lab.Require(b, lab.BIRD)
	c := &contest{b: b, l: lab.New(b)}
	peer, egret, other := c.l.MustNamespace("peer"), c.l.MustNamespace("egret"), c.l.MustNamespace("bird")
	var ends, others []lab.RouterBFD
	for i, ns := range []*lab.NS{egret, other} {
		c.l.MustLink(ns, "u0", peer, fmt.Sprintf("p%d", i))
		var here, there []string
		for k := range n {
			host, far := fmt.Sprintf("10.%d.1.%d", i, k+1), fmt.Sprintf("10.%d.2.%d", i, k+1)
			here, there = append(here, "addr add "+host+"/16 dev u0"), append(there, fmt.Sprintf("addr add %s/16 dev p%d", far, i))
			s := session(fmt.Sprint(k), "", host, far)
			s.DetectMult = 3
			end := lab.RouterBFD{Peer: s.Local, Local: s.Peer, Device: fmt.Sprintf("p%d", i), Interval: s.DesiredMinTx}
			ends = append(ends, end)
			if i == 0 {
				c.ours = append(c.ours, s)
				continue
			}
			c.theirs = append(c.theirs, s)
			others = append(others, lab.RouterBFD{Peer: s.Peer, Local: s.Local, Device: "u0", Interval: s.DesiredMinTx})
		}
		ns.MustIP(here...)
		peer.MustIP(there...)
	}
	start := func(ns *lab.NS, ends []lab.RouterBFD) *lab.Router {
		r, err := lab.StartBIRD(ns, lab.RouterConfig{ASN: 65001, RouterID: address("10.0.0.1"), BFD: ends})
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	c.peer, c.bird = start(peer, ends), start(other, others)
	c.s = startSpeaker(b, c.l, egret)
	c.s.set(c.ours...)
	c.up()
	return c
}

func (c *contest) up() {
	c.b.Helper()
	c.s.up(names(c.ours)...)
	lab.Eventually(c.b, 2*time.Minute, "sessions of BIRD", func() error {
		list, err := c.bird.BFDSessions()
		for _, s := range list {
			if s.State != "Up" || s.Interval > 50*time.Millisecond {
				err = errors.Join(err, fmt.Errorf("%+v", s))
			}
		}
		return err
	})
	for _, s := range c.ours {
		c.s.await(s.Name, "up at 50 ms", func(st bfd.State) bool { return st.Status == bfd.Up && st.DetectTime == 150*time.Millisecond })
	}
}

// BenchmarkDetection freezes the peer: how long until each side notices, both
// at once, with the same peer and timers. Use -benchtime 50x.
func BenchmarkDetection(b *testing.B) {
	c := newContest(b, 1)
	var egret, bird []time.Duration
	for b.Loop() {
		at := time.Now()
		if err := c.peer.Freeze(); err != nil {
			b.Fatal(err)
		}
		down := c.s.await("0", "down", func(st bfd.State) bool { return st.Status == bfd.Down })
		egret = append(egret, down.Since.Sub(at))
		bird = append(bird, c.birdDown(at).Sub(at))
		if err := c.peer.Thaw(); err != nil {
			b.Fatal(err)
		}
		c.up()
	}
	for name, list := range map[string][]time.Duration{"egret": egret, "bird": bird} {
		slices.Sort(list)
		for _, q := range []int{5, 50, 95} {
			b.ReportMetric(float64(list[(len(list)-1)*q/100])/1e6, fmt.Sprintf("%s-p%d-ms", name, q))
		}
	}
	b.ReportMetric(float64(egret[len(egret)/2])/float64(bird[len(bird)/2]), "egret/bird")
}

// birdDown waits until BIRD is down and returns when it was; BIRD tells the
// time of day.
func (c *contest) birdDown(after time.Time) time.Time {
	c.b.Helper()
	var since time.Time
	lab.Eventually(c.b, time.Minute, "BIRD to notice", func() error {
		s, err := c.bird.BFDSession(c.theirs[0].Peer, false)
		if err != nil || s.State != "Down" {
			return errors.Join(err, fmt.Errorf("%+v", s))
		}
		since, err = time.ParseInLocation("2006-01-02 15:04:05.000", after.Format("2006-01-02 ")+s.Since, time.Local)
		return err
	})
	return since
}

// BenchmarkSteady counts how often sessions are lost beside busy loops, in ten
// seconds for each turn; the common peer does not suffer from these.
func BenchmarkSteady(b *testing.B) {
	c := newContest(b, 10)
	prefer(b, c.peer.PIDs()[0])
	for range 16 {
		c.peer.NS.MustStart("busy", "sh", "-c", "while :; do :; done")
	}
	for b.Loop() {
		pass(b, 10*time.Second)
	}
	downs := uint64(0)
	for _, st := range c.s.State() {
		downs += st.Downs
	}
	b.ReportMetric(float64(downs), "egret-lost")
	b.ReportMetric(float64(strings.Count(c.bird.Log(), "from Up to Down")), "bird-lost")
}

// prefer gives a high priority to all threads of a process.
func prefer(tb testing.TB, pid int) {
	tb.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			tb.Fatal(err)
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, -20); err != nil {
			tb.Fatal(err)
		}
	}
}

// pass waits until this much time has passed.
func pass(tb testing.TB, d time.Duration) {
	tb.Helper()
	end := time.Now().Add(d)
	lab.Eventually(tb, 2*d, "the time to pass", func() error {
		if left := time.Until(end); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
}

// BenchmarkCPU has 200 sessions at 50 ms on each side: 4000 packets per second
// out and as many in. Each turn is ten seconds.
func BenchmarkCPU(b *testing.B) {
	c := newContest(b, 200)
	egret, bird, began, out := c.cpu(c.s.proc.PID()), c.cpu(c.bird.PIDs()[0]), time.Now(), c.sent()
	for b.Loop() {
		pass(b, 10*time.Second)
	}
	spent := time.Since(began).Seconds()
	b.ReportMetric(100*(c.cpu(c.s.proc.PID())-egret)/spent, "egret-%cpu")
	b.ReportMetric(100*(c.cpu(c.bird.PIDs()[0])-bird)/spent, "bird-%cpu")
	b.ReportMetric(float64(c.sent()-out)/spent, "egret-packets/s")
}

func (c *contest) sent() uint64 {
	sum := uint64(0)
	for _, st := range c.s.State() {
		sum += st.Out
	}
	return sum
}

// cpu is the processor time of a process in seconds.
func (c *contest) cpu(pid int) float64 {
	c.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		c.b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	ticks := 0
	for _, field := range strings.Fields(rest)[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			c.b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / 100
}
