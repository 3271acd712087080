package nat

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"github.com/egret-router/egret/lab"
)

// While an exit takes no new flows, those that it has stay, whatever packet of
// theirs comes, and what is new is discarded or refused.
func refuseTraffic(w *world) {
	cfg := overlapConfig()
	cfg.Policies[0].Rules = []Rule{rule("0.0.0.0/0", ToExit, "red.pool"), rule("::/0", ToExit, "red.pool")}
	w.become(cfg)
	var old []net.Conn
	for _, network := range []string{"tcp", "udp"} {
		for _, f := range lab.Families() {
			old = append(old, w.flow(network, f, 10, 48800))
		}
	}
	stays := func() {
		w.t.Helper()
		for i, conn := range old {
			w.mustAsk(conn, "red", pools[lab.Families()[i%2]])
		}
	}
	stays()
	for i, refuse := range []Action{Drop, Reject} {
		for e := range cfg.Exits {
			if cfg.Exits[e].Network == "red" {
				cfg.Exits[e].Refuse = refuse
			}
		}
		w.become(cfg)
		before := w.counter(counterNew)
		stays()
		if n := w.counter(counterNew) - before; n != 0 {
			w.t.Errorf("%d packets of established flows are counted as refused", n)
		}
		for _, f := range lab.Families() {
			if got, err := ask(w.flow("udp", f, 10, uint16(48801+i)), silence); err == nil {
				w.t.Errorf("%s: a new flow was answered: %q", f, got)
			}
			w.refused(f, refuse)
		}
		if n := w.counter(counterNew) - before; n < 4 {
			w.t.Errorf("only %d packets are counted as refused", n)
		}
		stays()
	}
	for e := range cfg.Exits {
		cfg.Exits[e].Refuse = Skip
	}
	w.become(cfg)
	stays()
	for _, f := range lab.Families() {
		w.mustAsk(w.flow("udp", f, 10, 48801), "red", pools[f])
		w.mustAsk(w.flow("tcp", f, 10, 48805), "red", pools[f])
	}
}

// refused tries a connection: with Reject the client is told, else it hears
// nothing.
func (w *world) refused(f lab.Family, how Action) {
	w.t.Helper()
	patience := silence
	if how == Reject {
		patience = deadline
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	err := w.cl.Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client(f, 10), 0))}
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(servers[f], port).String())
		if err == nil {
			conn.Close()
		}
		return err
	})
	switch {
	case err == nil:
		w.t.Errorf("%s: a new connection was made", f)
	case (how == Reject) == strings.Contains(err.Error(), "timeout"):
		w.t.Errorf("%s: a new connection ended with %v", f, err)
	}
}
