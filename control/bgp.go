package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/egret-router/egret/bgp"
)

// BGPSource is a Source that also knows the paths of BGP; *egress.Router is the
// real one. The queries network, peer and prefix choose some of them.
//
//	GET /v1/bgp/routes      []bgp.Path
//	GET /v1/bgp/advertised  []bgp.AdvertisedPath
type BGPSource interface {
	Paths(bgp.Filter) []bgp.Path
	Advertised(bgp.Filter) []bgp.AdvertisedPath
}

func serveBGP(mux *http.ServeMux, src Source, log *slog.Logger) {
	speaker, ok := src.(BGPSource)
	if !ok {
		return
	}
	handle := func(what string, list func(bgp.Filter) any) {
		mux.HandleFunc("GET /v1/bgp/"+what, func(w http.ResponseWriter, r *http.Request) {
			f, err := parseFilter(r.URL.Query())
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			answer(w, log, list(f), true)
		})
	}
	handle("routes", func(f bgp.Filter) any { return append([]bgp.Path{}, speaker.Paths(f)...) })
	handle("advertised", func(f bgp.Filter) any { return append([]bgp.AdvertisedPath{}, speaker.Advertised(f)...) })
}

func parseFilter(q url.Values) (f bgp.Filter, err error) {
	f.Network = q.Get("network")
	if s := q.Get("peer"); s != "" {
		if f.Peer, err = netip.ParseAddr(s); err != nil {
			return f, fmt.Errorf("peer %q is not an address", s)
		}
	}
	if s := q.Get("prefix"); s != "" {
		if f.Prefix, err = ParsePrefix(s); err != nil {
			return f, err
		}
	}
	return f, nil
}

// ParsePrefix reads a prefix, or an address as the prefix of one.
func ParsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("prefix %q is neither a prefix nor an address", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func filterQuery(f bgp.Filter) string {
	q := url.Values{}
	if f.Network != "" {
		q.Set("network", f.Network)
	}
	if f.Peer.IsValid() {
		q.Set("peer", f.Peer.String())
	}
	if f.Prefix.IsValid() {
		q.Set("prefix", f.Prefix.String())
	}
	return q.Encode()
}

// Paths asks what BGP peers sent.
func (c *Client) Paths(ctx context.Context, f bgp.Filter) ([]bgp.Path, error) {
	var out []bgp.Path
	err := c.get(ctx, "/v1/bgp/routes?"+filterQuery(f), &out)
	return out, err
}

// Advertised asks what BGP peers are sent.
func (c *Client) Advertised(ctx context.Context, f bgp.Filter) ([]bgp.AdvertisedPath, error) {
	var out []bgp.AdvertisedPath
	err := c.get(ctx, "/v1/bgp/advertised?"+filterQuery(f), &out)
	return out, err
}
