package bgp

import (
	"errors"
	"reflect"
	"testing"
)

// TestInspect lists what came in and what goes out, as the filters say.
func TestInspect(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	out := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort})
	in := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: gatewayASN, gateway: g.config.ListenPort})
	g.set(func(c *Config) {
		c.Peers = []Peer{out.peer(ImportRule{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 16, LocalPref: new(uint32(120))}), in.peer(anything...)}
		c.Peers[0].Export = Attributes{LargeCommunities: []LargeCommunity{{1, 2, 3}}}
		c.Advertise = []Advertisement{
			{Prefix: prefix("198.51.100.0/28"), Attributes: Attributes{Communities: []uint32{NoExport}, MED: new(uint32(5)), LocalPref: new(uint32(9)), Prepend: new(uint8(2))}},
			{Prefix: prefix("203.0.113.0/28")},
		}
	})
	g.established(out, in)
	out.announce(announcement{prefix: "10.1.0.0/16", communities: []uint32{65001<<16 | 7}, large: []LargeCommunity{{1, 2, 3}}, med: 4}, announcement{prefix: "10.1.1.0/24"})
	in.announce(announcement{prefix: "10.1.0.0/16", nextHop: "192.0.2.9"})
	g.routes("10.1.0.0/16 via 192.0.2.1")
	g.awaits("paths", func(State) error {
		if len(g.Paths(Filter{})) != 3 {
			return errors.New("not all of them")
		}
		return nil
	})
	best := Path{Network: "red", Peer: out.addr, Prefix: prefix("10.1.0.0/16"), NextHop: addr("192.0.2.1"), ASPath: "65001",
		MED: 4, LocalPref: 120, Communities: []string{"65001:7", "1:2:3"}, Accepted: true, Best: true}
	other := Path{Network: "red", Peer: in.addr, Prefix: prefix("10.1.0.0/16"), NextHop: addr("192.0.2.9"), LocalPref: 100, Accepted: true}
	refused := Path{Network: "red", Peer: out.addr, Prefix: prefix("10.1.1.0/24"), NextHop: addr("192.0.2.1"), ASPath: "65001", LocalPref: 100}
	for _, c := range []struct {
		filter Filter
		want   []Path
	}{
		{Filter{}, []Path{best, other, refused}},
		{Filter{Network: "blue"}, nil},
		{Filter{Network: "red", Peer: in.addr}, []Path{other}},
		{Filter{Prefix: prefix("10.1.0.0/17")}, []Path{refused}},
	} {
		if got := g.Paths(c.filter); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v, want %+v", c.filter, got, c.want)
		}
	}
	sent := []AdvertisedPath{
		{Network: "red", Peer: out.addr, Prefix: prefix("198.51.100.0/28"), Communities: []string{"65535:65281", "1:2:3"}, MED: new(uint32(5)), Prepend: 2},
		{Network: "red", Peer: in.addr, Prefix: prefix("198.51.100.0/28"), Communities: []string{"65535:65281"}, MED: new(uint32(5)), LocalPref: new(uint32(9))},
	}
	if got := g.Advertised(Filter{Prefix: prefix("198.51.100.0/24")}); !reflect.DeepEqual(got, sent) {
		t.Errorf("advertised %+v, want %+v", got, sent)
	}
	if got := g.Advertised(Filter{Peer: out.addr}); len(got) != 2 {
		t.Errorf("advertised %+v", got)
	}
}
