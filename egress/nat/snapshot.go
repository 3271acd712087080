package nat

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// listing is what "nft -j list" prints (libnftables-json(5)): objects, each
// under the name of its kind.
type listing struct {
	Nftables []map[string]json.RawMessage `json:"nftables"`
}

type jsonObject struct {
	Name  string `json:"name"`
	Chain string `json:"chain"`
	Table string `json:"table"`

	// Of tables. nft 1.0.6 prints garbage instead of the flag's name.
	Flags json.RawMessage `json:"flags"`

	// Of base chains.
	Type   json.RawMessage `json:"type"`
	Hook   string          `json:"hook"`
	Prio   int             `json:"prio"`
	Policy string          `json:"policy"`

	// Of rules.
	Comment string `json:"comment"`

	// Of flowtables: a name, or a list of them. nft 1.0.6 says nothing of flags.
	Dev json.RawMessage `json:"dev"`

	// Of maps and sets.
	Map  string            `json:"map"`
	Elem []json.RawMessage `json:"elem"`

	// Of counters.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// parseRuleset reads the JSON listing of our table. What it does not understand
// of an element or of a set becomes part of the value, so that it differs from
// anything we want and is replaced.
func parseRuleset(data []byte) (Ruleset, error) {
	var list listing
	if err := json.Unmarshal(data, &list); err != nil {
		return Ruleset{}, fmt.Errorf("parse nft listing: %w", err)
	}
	r := newRuleset()
	r.Exists = false
	for _, entry := range list.Nftables {
		for kind, raw := range entry {
			if err := r.readObject(kind, raw); err != nil {
				return Ruleset{}, fmt.Errorf("parse nft listing: %s: %w", kind, err)
			}
		}
	}
	if !r.Exists {
		return Ruleset{}, errors.New("parse nft listing: no table in it")
	}
	return r, nil
}

func (r *Ruleset) readObject(kind string, raw json.RawMessage) error {
	if kind == "metainfo" {
		return nil
	}
	var o jsonObject
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	switch kind {
	case kindTable:
		r.Exists, r.Dormant = true, len(o.Flags) > 0
	case kindChain:
		c := r.Chains[o.Name]
		if o.Hook != "" {
			c.Base = Base{o.typeName(), o.Hook, o.Prio, o.Policy}
		}
		r.Chains[o.Name] = c
	case kindRule:
		c := r.Chains[o.Chain]
		c.Lines = append(c.Lines, Line{ID: o.Comment})
		r.Chains[o.Chain] = c
	case "set", "map":
		s, err := o.set(raw)
		if err != nil {
			return fmt.Errorf("%q: %w", o.Name, err)
		}
		r.Sets[o.Name] = s
	case kindCounter:
		r.Counters[o.Name] = true
	case kindFlowtable:
		r.Flowtables[o.Name] = o.flowtable()
	default:
		r.Extra[kind+" "+o.Name] = Extra{kind, o.Name}
	}
	return nil
}

// typeName is the type if it has one word; a concatenation is a list.
func (o jsonObject) typeName() string {
	var name string
	if json.Unmarshal(o.Type, &name) != nil {
		return string(o.Type)
	}
	return name
}

// plainSetKeys are the properties of a set that we read.
var plainSetKeys = []string{"family", "name", "table", "type", "handle", "map", "flags", "elem"}

func (o jsonObject) set(raw json.RawMessage) (Set, error) {
	s := Set{Key: o.typeName(), Value: o.Map, Elements: make(map[string]string, len(o.Elem))}
	var flags []string
	if len(o.Flags) > 0 && json.Unmarshal(o.Flags, &flags) != nil {
		flags = []string{string(o.Flags)}
	}
	for _, flag := range flags {
		if flag == "interval" {
			s.Interval = true
		} else {
			s.Odd += " " + flag
		}
	}
	var props map[string]json.RawMessage
	if err := json.Unmarshal(raw, &props); err != nil {
		return Set{}, err
	}
	for _, key := range slices.Sorted(maps.Keys(props)) {
		if !slices.Contains(plainSetKeys, key) {
			s.Odd += " " + key + " " + string(props[key])
		}
	}
	for _, elem := range o.Elem {
		key, value := s.readElement(elem)
		s.Elements[key] = value
	}
	return s, nil
}

// readElement gives canonical key and value of an element.
func (s Set) readElement(raw json.RawMessage) (string, string) {
	if s.Value == "" {
		return s.readKey(raw), ""
	}
	var pair []json.RawMessage
	if json.Unmarshal(raw, &pair) != nil || len(pair) != 2 {
		return s.readKey(raw), "?"
	}
	return s.readKey(pair[0]), readValue(pair[1])
}

// readKey reads a key: a word, a number, a prefix, a range, or an "elem" around
// one of them, which has a comment, a timeout or the like. That is never ours;
// such a key prints as nft takes it to delete it, but with a space behind it.
func (s Set) readKey(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "?" // an "elem" around nothing, which nft does not print
	}
	if s.Key == "ifname" && raw[0] == '"' {
		return string(raw)
	}
	if raw[0] == '"' {
		return readWord(raw)
	}
	if number, err := strconv.ParseUint(string(raw), 10, 32); err == nil {
		if s.Key == "mark" {
			return mark(uint32(number))
		}
		return strconv.FormatUint(number, 10)
	}
	var object struct {
		Prefix *struct {
			Addr netip.Addr `json:"addr"`
			Len  int        `json:"len"`
		} `json:"prefix"`
		Range []netip.Addr `json:"range"`
		Elem  *struct {
			Val json.RawMessage `json:"val"`
		} `json:"elem"`
	}
	if json.Unmarshal(raw, &object) != nil {
		return string(raw)
	}
	switch {
	case object.Prefix != nil:
		if p, err := object.Prefix.Addr.Prefix(object.Prefix.Len); err == nil && p.IsValid() {
			return prefixSpan(p).String()
		}
	case len(object.Range) == 2 && object.Range[0].IsValid() && object.Range[1].IsValid():
		return span{object.Range[0], object.Range[1]}.String()
	case object.Elem != nil:
		return s.readKey(object.Elem.Val) + " "
	}
	return string(raw)
}

// readWord reads a string, which may be an address.
func readWord(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return addrText(a)
	}
	return text
}

// readValue reads the value of a map element: an address or a verdict.
func readValue(raw json.RawMessage) string {
	if raw[0] == '"' {
		return readWord(raw)
	}
	var verdict map[string]*struct {
		Target string `json:"target"`
	}
	if json.Unmarshal(raw, &verdict) != nil || len(verdict) != 1 {
		return string(raw)
	}
	for word, to := range verdict {
		if to != nil {
			return word + " " + to.Target
		}
		return word
	}
	return string(raw)
}

// Counter is the value of one counter of packets that were discarded.
type Counter struct {
	// Reason is one of the Reason constants, Network the network of a
	// ReasonUplink.
	Reason, Network string
	Packets, Bytes  uint64
}

// Why packets were discarded.
const (
	ReasonUplink    = "uplink_source"    // a source that is not the network's would have left by its port
	ReasonInbound   = "inbound"          // a new connection from an uplink to what is behind this node
	ReasonInvalid   = "invalid"          // conntrack could not make sense of it
	ReasonDrop      = "rule_drop"        // a rule with action drop
	ReasonReject    = "rule_reject"      // a rule with action reject
	ReasonUnmatched = "unmatched_client" // DropUnmatched
	ReasonNoAddress = "no_pool_address"  // the exit has no address of the family
	ReasonDraining  = "draining"         // a new flow to an exit that takes none
	ReasonMidstream = "tcp_midstream"    // a TCP connection through an exit that conntrack does not know (reset)
)

var counterReasons = map[string]string{
	counterInbound:   ReasonInbound,
	counterInvalid:   ReasonInvalid,
	counterDrop:      ReasonDrop,
	counterReject:    ReasonReject,
	counterUnmatched: ReasonUnmatched,
	counterNoAddress: ReasonNoAddress,
	counterMidstream: ReasonMidstream,
	counterNew:       ReasonDraining,
}

// parseCounters reads the JSON listing of counters. Those of other tables and
// those we do not know are left out.
func parseCounters(data []byte, table string) (map[string]Counter, error) {
	var list listing
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("parse nft listing: %w", err)
	}
	out := map[string]Counter{}
	for _, entry := range list.Nftables {
		raw, ok := entry[kindCounter]
		if !ok {
			continue
		}
		var o jsonObject
		if err := json.Unmarshal(raw, &o); err != nil {
			return nil, fmt.Errorf("parse nft listing: counter: %w", err)
		}
		c := Counter{Reason: counterReasons[o.Name], Packets: o.Packets, Bytes: o.Bytes}
		if network, ok := strings.CutPrefix(o.Name, prefixGuardDrops); ok {
			c.Reason, c.Network = ReasonUplink, network
		}
		if table != tableName {
			c.Reason = o.Name
		}
		if o.Table == table && c.Reason != "" {
			out[o.Name] = c
		}
	}
	return out, nil
}
