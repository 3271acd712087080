package bfd

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func valid() Config {
	return Config{Name: "a", Peer: netip.MustParseAddr("10.0.0.1"), DesiredMinTx: 50 * ms, RequiredMinRx: 50 * ms, DetectMult: 3}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		want   string
		mangle func(c *Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) { c.Multihop, c.MinTTL = true, 250 }},
		{"", func(c *Config) { c.Peer = netip.MustParseAddr("fe80::1%eth0") }},
		{"", func(c *Config) { c.Auth = &Auth{Type: KeyedSHA1, Key: "k"} }},
		{"name", func(c *Config) { c.Name = "" }},
		{"device", func(c *Config) { c.Device = strings.Repeat("x", 16) }},
		{"peer: no address", func(c *Config) { c.Peer = netip.Addr{} }},
		{"peer: 224.0.0.1: not unicast", func(c *Config) { c.Peer = netip.MustParseAddr("224.0.0.1") }},
		{"peer: ::: not unicast", func(c *Config) { c.Peer = netip.MustParseAddr("::") }},
		{"IPv4 in IPv6", func(c *Config) { c.Peer = netip.MustParseAddr("::ffff:10.0.0.1") }},
		{"has a zone", func(c *Config) { c.Peer = netip.MustParseAddr("fe80::1") }},
		{"has a zone", func(c *Config) { c.Peer = netip.MustParseAddr("fd00::1%eth0") }},
		{"multihop", func(c *Config) { c.Peer, c.Multihop = netip.MustParseAddr("fe80::1%eth0"), true }},
		{"family", func(c *Config) { c.Local = netip.MustParseAddr("fd00::1") }},
		{"zone", func(c *Config) {
			c.Peer, c.Local = netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("fe80::2%eth1")
		}},
		{"min TTL", func(c *Config) { c.MinTTL = 255 }},
		{"desired min tx", func(c *Config) { c.DesiredMinTx = 9 * ms }},
		{"required min rx", func(c *Config) { c.RequiredMinRx = 61 * time.Second }},
		{"multiplier", func(c *Config) { c.DetectMult = 0 }},
		{"unknown type", func(c *Config) { c.Auth = &Auth{Type: "md5", Key: "k"} }},
		{"1 to 16 bytes", func(c *Config) { c.Auth = &Auth{Type: SimplePassword, Key: strings.Repeat("k", 17)} }},
		{"1 to 20 bytes", func(c *Config) { c.Auth = &Auth{Type: MeticulousSHA1} }},
	} {
		config := valid()
		c.mangle(&config)
		err := config.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
}

func TestRunnableIsTotal(t *testing.T) {
	second, other, bad := valid(), valid(), valid()
	second.Name, bad.Name, bad.DetectMult = "b", "c", 0
	other.Name, other.Multihop = "d", true
	got, err := runnable([]Config{valid(), second, valid(), bad, other})
	if len(got) != 2 || got[0].Name != "a" || got[1].Name != "d" {
		t.Errorf("runs %+v", got)
	}
	for _, text := range []string{`"b" (sessions[1]): same addresses as session "a"`, `"a" (sessions[2]): name: used`, `"c" (sessions[3]): detect multiplier`} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v lacks %q", err, text)
		}
	}
}

// FuzzRequest: what a client says is either refused or runs as it was said.
func FuzzRequest(f *testing.F) {
	set := []Config{valid()}
	for _, q := range []request{{Quit: true}, {Set: &set}, {Hello: &clientHello{Version: 1, Linger: time.Minute}}} {
		line, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var q request
		if json.Unmarshal(line, &q) != nil || q.Set == nil {
			return
		}
		list, _ := runnable(*q.Set)
		for _, c := range list {
			text, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			var back Config
			if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, c) {
				t.Errorf("%+v came back as %+v: %v", c, back, err)
			}
		}
	})
}
