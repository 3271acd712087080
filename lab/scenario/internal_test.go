package scenario

import (
	"errors"
	"reflect"
	"regexp"
	"testing"

	"net/netip"

	"github.com/egret-router/egret/lab"
)

func TestOutcome(t *testing.T) {
	failure := errors.New("failure")
	any, some := regexp.MustCompile(""), regexp.MustCompile("(?m)^yes$")
	for _, c := range []struct {
		out     string
		err     error
		failing bool
		match   *regexp.Regexp
		good    bool
	}{
		{"", nil, false, any, true},
		{"no\nyes\n", nil, false, some, true},
		{"no\n", nil, false, some, false},
		{"yes\n", failure, false, some, false},
		{"", failure, true, any, true},
		{"", nil, true, any, false},
		{"", usageError("wrong"), true, any, false},
	} {
		if err := outcome(c.out, c.err, c.failing, c.match); (err == nil) != c.good {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestParseRouterConfig(t *testing.T) {
	got, err := parseRouterConfig([]string{"asn=65001", "id=192.0.2.1", "peer=fd00::1/64512", "announce=10.0.0.0/24", "accept=::/0"})
	want := lab.RouterConfig{
		ASN: 65001, RouterID: netip.MustParseAddr("192.0.2.1"),
		Peers:    []lab.RouterPeer{{Address: netip.MustParseAddr("fd00::1"), ASN: 64512}},
		Announce: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Accept: []netip.Prefix{netip.MustParsePrefix("::/0")},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("config %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"asn=x", "id=x", "peer=fd00::1", "peer=x/1", "announce=10.0.0.0", "accept", "color=red"} {
		if _, err := parseRouterConfig([]string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestCommandsRefuseWrongUse holds that no command takes a script's mistake for an outcome.
func TestCommandsRefuseWrongUse(t *testing.T) {
	s := &script{tb: t}
	for name, args := range map[string][]string{
		"link": {"a"}, "ip": {"a"}, "in": {}, "sysctl": {"a"}, "cut": {}, "heal": {"red"}, "router": {"red"}, "router-start": {"x"},
		"overlap": {"color=red"}, "egret-run": {}, "egret-config": {"file"}, "fetch": {"x"}, "ask": {"10.0.0.1", "x"}, "udp": {"x"},
		"ping": {"x", "y"}, "stream-start": {"a"}, "stream-stop": {"a"}, "connect": {"a"}, "connected": {"a"},
		"sniff": {"red", "x"}, "sniffed": {"red"}, "inject": {"red"},
	} {
		_, err := s.commands()[name](t.Context(), args)
		if wrong := usageError(""); !errors.As(err, &wrong) {
			t.Errorf("%s %q: %v", name, args, err)
		}
	}
}
