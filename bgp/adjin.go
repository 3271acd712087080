package bgp

import (
	"net/netip"
	"slices"
)

// received is one path of a peer's Adj-RIB-In.
type received struct {
	candidate
	verdict
	// id tells apart the paths of one prefix (RFC 7911); 0 without add-path.
	id uint32
}

// adjIn mirrors the Adj-RIB-In of one peer.
type adjIn struct {
	peer  peerPolicy
	rules []compiledRule
	// paths has one path of each prefix, more the others that add-path brings.
	paths    map[netip.Prefix]received
	more     map[netip.Prefix][]received
	count    [families]int
	accepted int
	// version counts the changes, see rib.replace.
	version uint64
}

// peerPolicy is what a peer's paths are judged by.
type peerPolicy struct {
	internal bool
	// localASN is what we call ourselves in the session, another loop to look for.
	localASN uint32
	rules    []ImportRule
}

func (p Peer) policy(asn uint32) peerPolicy {
	return peerPolicy{internal: p.internal(asn), localASN: p.LocalASN, rules: p.Import}
}

// pathKey identifies a path of a peer.
type pathKey struct {
	prefix netip.Prefix
	id     uint32
}

func (in *adjIn) get(k pathKey) (received, bool) {
	first, ok := in.paths[k.prefix]
	if !ok || first.id == k.id {
		return first, ok
	}
	list := in.more[k.prefix]
	if i := slices.IndexFunc(list, func(r received) bool { return r.id == k.id }); i >= 0 {
		return list[i], true
	}
	return received{}, false
}

// put adds or replaces a path.
func (in *adjIn) put(k pathKey, r received) {
	r.id = k.id
	if first, ok := in.paths[k.prefix]; !ok || first.id == k.id {
		in.paths[k.prefix] = r
		return
	}
	list := in.more[k.prefix]
	if i := slices.IndexFunc(list, func(r received) bool { return r.id == k.id }); i >= 0 {
		list[i] = r
		return
	}
	in.more[k.prefix] = append(list, r)
}

func (in *adjIn) remove(k pathKey) {
	list := in.more[k.prefix]
	switch first := in.paths[k.prefix]; {
	case first.id != k.id:
		list = slices.DeleteFunc(list, func(r received) bool { return r.id == k.id })
	case len(list) > 0:
		in.paths[k.prefix], list = list[0], list[1:]
	default:
		delete(in.paths, k.prefix)
		return
	}
	if len(list) == 0 {
		delete(in.more, k.prefix)
	} else {
		in.more[k.prefix] = list
	}
}

// keys are those of all paths.
func (in *adjIn) keys() []pathKey {
	out := make([]pathKey, 0, len(in.paths))
	for p, r := range in.paths {
		out = append(out, pathKey{p, r.id})
	}
	for p, list := range in.more {
		for _, r := range list {
			out = append(out, pathKey{p, r.id})
		}
	}
	return out
}
