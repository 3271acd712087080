package containerlab

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/egress/config"
)

// TestGatewayConfigurations parses every gateway's configuration as egret does.
func TestGatewayConfigurations(t *testing.T) {
	files, err := filepath.Glob("*/egret*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find configurations: %q, %v", files, err)
	}
	for _, file := range files {
		if _, err := config.Load(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestNetworksOverlap holds what the topology is there to show: all networks of
// the gateway have the same transfer addresses, peers and destinations.
func TestNetworksOverlap(t *testing.T) {
	spec, err := config.Load("gateway/egret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Networks) != 2 {
		t.Fatalf("%d networks, want 2", len(spec.Networks))
	}
	var addresses, peers [][]string
	for _, n := range spec.Networks {
		var a, p []string
		for _, port := range n.Ports {
			for _, address := range port.Addresses {
				a = append(a, address.String())
			}
		}
		for _, peer := range n.BGP.Peers {
			p = append(p, peer.Address.String())
		}
		addresses, peers = append(addresses, a), append(peers, p)
	}
	if !slices.Equal(addresses[0], addresses[1]) || len(addresses[0]) != 2 {
		t.Errorf("addresses %q, want the same two twice", addresses)
	}
	if !slices.Equal(peers[0], peers[1]) || len(peers[0]) != 2 {
		t.Errorf("peers %q, want the same two twice", peers)
	}
}

// TestRoutersKnowTheirPools compares the routers' import filters with the
// gateway's pools.
func TestRoutersKnowTheirPools(t *testing.T) {
	spec, err := config.Load("gateway/egret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pools := map[string][]netip.Prefix{}
	for _, p := range spec.Pools {
		pools[p.Network] = append(pools[p.Network], p.Prefixes...)
	}
	for network, file := range map[string]string{"red": "red/frr.conf", "blue": "blue/bird.conf"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, prefixes := range pools {
			for _, prefix := range prefixes {
				if got, want := strings.Contains(string(text), prefix.String()), name == network; got != want {
					t.Errorf("%s mentions %v of network %s: %v, want %v", file, prefix, name, got, want)
				}
			}
		}
	}
}
