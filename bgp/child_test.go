package bgp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
)

// childEnv makes the test binary a process with a Speaker, for a namespace of
// its own and for kill -9.
const childEnv = "EGRET_BGP_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := childMain(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// order is a line of the child's standard input.
type order struct {
	Set   []Config `json:"set,omitempty"`
	Close *bool    `json:"close,omitempty"`
}

// report is a line of its standard output.
type report struct {
	// Done counts the orders carried out.
	Done   int
	Err    string
	States []State
}

func childMain(in io.Reader, out io.Writer) error {
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	s := New(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})), tell)
	orders := make(chan order)
	go func() {
		defer close(orders)
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			var o order
			if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
				panic(err)
			}
			orders <- o
		}
	}()
	var r report
	encoder := json.NewEncoder(out)
	for {
		select {
		case o, ok := <-orders:
			if !ok {
				return nil
			}
			r.Done++
			r.Err = ""
			if o.Close != nil {
				s.Close(*o.Close)
			} else if err := s.Set(context.Background(), o.Set); err != nil {
				r.Err = err.Error()
			}
		case <-changed:
		}
		r.States = s.State()
		for i := range r.States {
			if r.States[i].Err != nil {
				r.States[i].Err = nil
			}
		}
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}
}

// child is such a process in a namespace.
type child struct {
	t     *testing.T
	proc  *lab.Proc
	stdin *os.File
	sent  int
}

func startChild(t *testing.T, ns *lab.NS) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := ns.Command(context.Background(), self)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stdin = r
	c := &child{t: t, stdin: w}
	if c.proc, err = ns.StartCommand("speaker", cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return c
}

// do gives an order, which must succeed, and waits until it is carried out.
func (c *child) do(o order) {
	c.t.Helper()
	if text := c.give(o); text != "" {
		c.t.Fatal(text)
	}
}

// refuses has Set fail.
func (c *child) refuses(want string, configs ...Config) {
	c.t.Helper()
	if text := c.give(order{Set: configs}); !strings.HasPrefix(text, want) {
		c.t.Errorf("error %q, want %q", text, want)
	}
}

// give returns the error of the order.
func (c *child) give(o order) string {
	c.t.Helper()
	line, err := json.Marshal(o)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.stdin.Write(append(line, '\n')); err != nil {
		c.t.Fatal(err)
	}
	c.sent++
	var r report
	lab.Eventually(c.t, deadline, "the speaker to obey", func() (err error) {
		r, err = c.last()
		if err == nil && r.Done < c.sent {
			err = fmt.Errorf("%d of %d orders done", r.Done, c.sent)
		}
		return err
	})
	return r.Err
}

func (c *child) set(configs ...Config) {
	c.t.Helper()
	c.do(order{Set: configs})
}

// last is the newest complete report.
func (c *child) last() (report, error) {
	if !c.proc.Running() {
		return report{}, lab.Final(fmt.Errorf("the speaker ended: %s", c.proc.Log()))
	}
	text := c.proc.Stdout()
	lines := strings.Split(text, "\n")
	if len(lines) < 2 {
		return report{}, errors.New("no report yet")
	}
	var r report
	err := json.Unmarshal([]byte(lines[len(lines)-2]), &r)
	return r, err
}

func (c *child) state(network string) (State, error) {
	r, err := c.last()
	if err != nil {
		return State{}, err
	}
	i := slices.IndexFunc(r.States, func(s State) bool { return s.Network == network })
	if i < 0 {
		return State{}, fmt.Errorf("no state of %q", network)
	}
	return r.States[i], nil
}

// routes waits until the network has exactly these.
func (c *child) routes(network string, want ...string) {
	c.t.Helper()
	lab.Eventually(c.t, deadline, "routes of "+network, func() error {
		s, err := c.state(network)
		if err != nil {
			return err
		}
		if have := routeText(s.Routes); !slices.Equal(have, want) {
			return fmt.Errorf("have %q, want %q: %+v", have, want, s.Peers)
		}
		return nil
	})
}

func (c *child) flaps(network string) int {
	c.t.Helper()
	s, err := c.state(network)
	if err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for _, p := range s.Peers {
		n += p.Flaps
	}
	return n
}

func prefixList(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, prefix(text))
	}
	return out
}
