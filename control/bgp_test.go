package control

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/egret-router/egret/bgp"
)

// speaker remembers the filters it was asked with.
type speaker struct {
	source
	asked *[]bgp.Filter
}

func (s speaker) Paths(f bgp.Filter) []bgp.Path {
	*s.asked = append(*s.asked, f)
	if f.Network == "none" {
		return nil
	}
	return []bgp.Path{{Network: "red", Peer: netip.MustParseAddr("fe80::1%eth0"), Prefix: netip.MustParsePrefix("10.0.0.0/8"),
		NextHop: netip.MustParseAddr("172.16.0.2"), ASPath: "65001", Communities: []string{"1:2"}, Accepted: true, Best: true}}
}

func (s speaker) Advertised(f bgp.Filter) []bgp.AdvertisedPath {
	*s.asked = append(*s.asked, f)
	return []bgp.AdvertisedPath{{Network: "red", Peer: netip.MustParseAddr("172.16.0.2"), Prefix: netip.MustParsePrefix("198.51.100.0/28"), MED: new(uint32(0))}}
}

func TestBGP(t *testing.T) {
	var asked []bgp.Filter
	src := speaker{asked: &asked}
	c := serve(t, src)
	f := bgp.Filter{Network: "red", Peer: netip.MustParseAddr("fe80::1%eth0"), Prefix: netip.MustParsePrefix("10.0.0.0/8")}
	paths, err := c.Paths(t.Context(), f)
	if err != nil || !reflect.DeepEqual(paths, src.Paths(f)) {
		t.Errorf("paths came over as %+v, %v", paths, err)
	}
	sent, err := c.Advertised(t.Context(), bgp.Filter{})
	if err != nil || !reflect.DeepEqual(sent, src.Advertised(bgp.Filter{})) {
		t.Errorf("advertised came over as %+v, %v", sent, err)
	}
	if want := []bgp.Filter{f, f, {}, {}}; !reflect.DeepEqual(asked, want) {
		t.Errorf("filters came over as %+v", asked)
	}
	if paths, err := c.Paths(t.Context(), bgp.Filter{Network: "none"}); err != nil || paths == nil || len(paths) != 0 {
		t.Errorf("no paths are %+v, %v", paths, err)
	}
	for query, want := range map[string]string{"peer=x": `peer "x" is not an address`, "prefix=10.0.0.0/33": `prefix "10.0.0.0/33" is neither`} {
		if err := c.get(t.Context(), "/v1/bgp/routes?"+query, &paths); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", query, err)
		}
	}
}
