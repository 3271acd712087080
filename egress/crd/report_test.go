package crd

import (
	"log/slog"
	"testing"
)

// TestReporter holds that the status says what nodes say, also after an outage of
// the API server and a restart of a node's process.
func TestReporter(t *testing.T) {
	w := newWorld(t)
	w.apply(redGateway)
	state := func(node, want string) {
		t.Helper()
		w.eventually(want, "get", "egw", "red", `--output=jsonpath=[{range .status.nodes[?(@.node=="`+node+`")]}{.state}:{.message}:{.addresses}{end}]`)
	}
	run := func(node string) (*Reporter, func()) {
		client := w.connect()
		r := NewReporter(client, node, slog.New(slog.DiscardHandler))
		_, stopSource := w.source(SourceOptions{Role: RoleGateway, Node: node, Deliver: r.Deliver})
		stop := w.background(r.Run)
		return r, func() { stop(); stopSource() }
	}
	first, _ := run("n1")
	second, stop := run("n2")
	first.Set(map[string]NodeReport{"default/red": {State: StateReady, Addresses: []string{"198.51.100.1"}}, "default/none": {State: StateReady}})
	second.Set(map[string]NodeReport{"default/red": {State: StateFailed, Message: "the network is down"}})
	state("n1", `[Ready::["198.51.100.1"]]`)
	state("n2", "[Failed:the network is down:]")

	w.KillAPI()
	first.Set(map[string]NodeReport{"default/red": {State: StateDraining, Addresses: []string{"198.51.100.1"}}})
	stop()
	if err := w.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	state("n1", `[Draining::["198.51.100.1"]]`)
	state("n2", "[Failed:the network is down:]")
	third, _ := run("n2")
	third.Set(nil)
	state("n2", "[]")
	state("n1", `[Draining::["198.51.100.1"]]`)
}
