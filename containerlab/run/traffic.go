package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// watchers' programs end within a moment of their signal, and start as fast.
const prompt = 2 * time.Minute

// fetch asks a server who it is and whom it sees, from a fixed source port.
func (l *lab) fetch(ctx context.Context, node string, timeout time.Duration, source uint16, server netip.Addr) (network string, saw netip.AddrPort, err error) {
	out, err := l.exec(ctx, node, "egretlab", "fetch", "-timeout", timeout.String(), "-source", fmt.Sprint(":", source), url(server))
	if err != nil {
		return "", saw, err
	}
	return parseAnswer(out)
}

// url is a server's page, as one would type it.
func url(server netip.Addr) string {
	if server.Is6() {
		return "http://[" + server.String() + "]/"
	}
	return "http://" + server.String() + "/"
}

// parseAnswer reads what egretlab's server says: "<network> saw <address>:<port>".
func parseAnswer(text string) (network string, saw netip.AddrPort, err error) {
	words := strings.Fields(text)
	if len(words) != 3 || words[1] != "saw" {
		return "", saw, fmt.Errorf("parse the server's answer %q", text)
	}
	saw, err = netip.ParseAddrPort(words[2])
	return words[0], saw, err
}

// A watcher is an egretlab that runs on a node until it is stopped, and then
// reports in JSON.
type watcher struct {
	lab        *lab
	node, name string
}

// watch starts egretlab on a node and returns when it is ready. Its name is
// unique on the node.
func (l *lab) watch(ctx context.Context, node, name string, args ...string) (*watcher, error) {
	w := &watcher{lab: l, node: node, name: name}
	script := fmt.Sprintf("echo $$ >%s; exec egretlab %s >%s 2>%s", w.file("pid"), strings.Join(args, " "), w.file("json"), w.file("err"))
	if err := l.start(ctx, node, "sh", "-c", script); err != nil {
		return nil, err
	}
	err := eventually(ctx, prompt, name+" on "+node, func(ctx context.Context) error {
		said, err := l.exec(ctx, node, "cat", w.file("err"))
		if err == nil && !strings.Contains(said, "ready") {
			err = fmt.Errorf("not ready: %q", said)
		}
		return err
	})
	return w, err
}

func (w *watcher) file(kind string) string { return "/run/" + w.name + "." + kind }

// stop ends it and reads its report.
func (w *watcher) stop(ctx context.Context, report any) error {
	if _, err := w.lab.exec(ctx, w.node, "sh", "-c", "kill -INT $(cat "+w.file("pid")+")"); err != nil {
		return err
	}
	return eventually(ctx, prompt, "report of "+w.name+" on "+w.node, func(ctx context.Context) error {
		out, err := w.lab.exec(ctx, w.node, "cat", w.file("json"))
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(out), report)
	})
}
