package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/egret-router/egret/lab"
)

// pktgenDir is the generator's directory of the calling thread's namespace:
// /proc/net would be that of the process.
const pktgenDir = "/proc/thread-self/net/pktgen/"

// A stream is what one generator device of pktgen sends: from one address to
// one address, with ports that count up.
type stream struct {
	device   string
	src, dst netip.Addr
	mac      string // of the receiver
	srcPort  int    // the first, or the only one if portAt is the destination
	dstPort  int
	portAt   direction // toNetwork: source ports count; toClients: destination ports
}

// A generator sends streams, one after the other, from a namespace, and reads
// what arrived from the counters of the receiving devices.
type generator struct {
	bed     *testbed
	from    *lab.NS
	to      *lab.NS
	streams []stream
	arrive  []string // devices in to
}

// Ports: each stream has its own, so that translation to one address keeps them.
const (
	firstPort  = 10000
	serverPort = 9
)

// generators prepares the streams of both families and directions.
func (t *testbed) generators() error {
	t.gen = map[cell]*generator{}
	for _, c := range cells() {
		g := &generator{bed: t, from: t.source, to: t.sink}
		if c.Direction == toClients {
			g.from, g.to = t.sink, t.source
			g.arrive = []string{"src0"}
		} else {
			for i := range t.bench.Networks {
				g.arrive = append(g.arrive, fmt.Sprintf("s%d", i))
			}
		}
		for k := range streams {
			s, err := t.stream(c, k)
			if err != nil {
				return err
			}
			g.streams = append(g.streams, s)
		}
		if t.bench.Kind == generatorOnly {
			g.arrive = nil
		}
		t.gen[c] = g
	}
	return nil
}

func (t *testbed) stream(c cell, k int) (stream, error) {
	uplink := k % t.bench.Networks
	s := stream{mac: nowhere, portAt: c.Direction}
	ours := firstPort + k*flowsPerStream
	router := "cl0"
	if c.Direction == toNetwork {
		s.device = "src0"
		s.src, s.dst, s.srcPort, s.dstPort = clientAddr(k, c.Family), serverAddr(k, c.Family), ours, serverPort
	} else {
		s.device, router = fmt.Sprintf("s%d", uplink), fmt.Sprintf("u%d", uplink)
		s.src, s.dst, s.srcPort, s.dstPort = serverAddr(k, c.Family), t.bench.replyAddr(k, c.Family), serverPort, ours
	}
	if t.bench.Kind == generatorOnly || t.bench.Kind == wireOnly {
		return s, nil
	}
	mac, err := t.router.MAC(router)
	s.mac = mac.String()
	return s, err
}

// commands are what pktgen is told about a stream of count packets.
func (s stream) commands(count int) []string {
	six := ""
	size := "60" // 64 bytes on the wire with the frame check sequence
	if s.dst.Is6() {
		six, size = "6", "80" // the least that has room for pktgen's own header
	}
	src := []string{"src" + six + " " + s.src.String()}
	dst := []string{"dst" + six + " " + s.dst.String()}
	if six == "" {
		src = []string{"src_min " + s.src.String(), "src_max " + s.src.String()}
		dst = []string{"dst_min " + s.dst.String(), "dst_max " + s.dst.String()}
	}
	srcEnd, dstEnd := s.srcPort, s.dstPort
	if s.portAt == toNetwork {
		srcEnd += flowsPerStream
	} else {
		dstEnd += flowsPerStream
	}
	out := []string{s.count(count), "clone_skb 0", "delay 0", "pkt_size " + size, "dst_mac " + s.mac}
	out = append(append(out, src...), dst...)
	return append(out,
		fmt.Sprintf("udp_src_min %d", s.srcPort), fmt.Sprintf("udp_src_max %d", srcEnd),
		fmt.Sprintf("udp_dst_min %d", s.dstPort), fmt.Sprintf("udp_dst_max %d", dstEnd))
}

// A sample is what one run of a generator showed.
type sample struct {
	sent, arrived int
	took          time.Duration // until the last packet had been sent
}

// settleTime is how long the kernel may take to free, in the background, the
// megabytes that pktgen had for each of its former devices.
const settleTime = 500 * time.Millisecond

// prepare makes the next run send count packets on each stream.
func (g *generator) prepare(count int) error {
	known := g.bed.loaded[g.from] == g
	if err := g.from.Do(func() error { return g.configure(count) }); err != nil {
		return fmt.Errorf("configure pktgen in %q: %w", g.from.Name, err)
	}
	if !known {
		time.Sleep(settleTime)
	}
	return nil
}

// run sends what was prepared and waits for the end.
func (g *generator) run() (sample, error) {
	before, err := g.arrived()
	if err != nil {
		return sample{}, err
	}
	var s sample
	err = g.from.Do(func() error {
		if err := write("pgctrl", "start"); err != nil {
			return err
		}
		s, err = g.read()
		return err
	})
	if err != nil {
		return s, fmt.Errorf("generate packets in %q: %w", g.from.Name, err)
	}
	after, err := g.arrived()
	s.arrived = after - before
	if g.bed.bench.Kind == generatorOnly {
		s.arrived = s.sent // nobody counts them
	}
	return s, err
}

func (s stream) file(k int) string { return fmt.Sprintf("%s@%d", s.device, k) }

// configure tells pktgen about the streams, unless it knows them already.
func (g *generator) configure(count int) error {
	if g.bed.loaded[g.from] == g {
		return g.each(func(s stream) []string { return []string{s.count(count)} })
	}
	g.bed.loaded[g.from] = g
	err := forget()
	for k, s := range g.streams {
		if err == nil {
			err = write("kpktgend_0", "add_device "+s.file(k))
		}
	}
	if err != nil {
		return err
	}
	return g.each(func(s stream) []string { return s.commands(count) })
}

// forget takes all streams from pktgen, which its thread does sooner or later.
func forget() error {
	if err := write("kpktgend_0", "rem_device_all"); err != nil {
		return err
	}
	return lab.Poll(context.Background(), 30*time.Second, "pktgen to forget its devices", func() error {
		text, err := os.ReadFile(pktgenDir + "kpktgend_0")
		if err == nil && strings.Contains(string(text), "@") {
			err = errors.New("there are some")
		}
		return err
	})
}

// each gives every stream's device its commands.
func (g *generator) each(commands func(stream) []string) error {
	for k, s := range g.streams {
		for _, c := range commands(s) {
			if err := write(s.file(k), c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s stream) count(n int) string { return "count " + strconv.Itoa(n) }

func write(file, command string) error {
	f, err := os.OpenFile(pktgenDir+file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(command + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("pktgen %q: %w", command, err)
	}
	return nil
}

// read collects the results. The streams ran one after the other, but all
// were started together: the longest time is that of the whole.
func (g *generator) read() (sample, error) {
	var s sample
	for k, st := range g.streams {
		text, err := os.ReadFile(pktgenDir + st.file(k))
		if err != nil {
			return s, err
		}
		sent, took, err := parseResult(string(text))
		if err != nil {
			return s, fmt.Errorf("stream %d: %w", k, err)
		}
		s.sent += sent
		s.took = max(s.took, took)
	}
	return s, nil
}

var resultLine = regexp.MustCompile(`Result: OK: (\d+)\(c\d+\+d\d+\) usec, (\d+) \(`)

// parseResult reads a device's file after a run.
func parseResult(text string) (sent int, took time.Duration, err error) {
	m := resultLine.FindStringSubmatch(text)
	if m == nil {
		return 0, 0, fmt.Errorf("no result in %q", text[max(0, len(text)-200):])
	}
	micros, err1 := strconv.ParseInt(m[1], 10, 64)
	sent, err2 := strconv.Atoi(m[2])
	return sent, time.Duration(micros) * time.Microsecond, errors.Join(err1, err2)
}
