package nat

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// Objects with this prefix are guards: they come first and go last.
const guardPrefix = "guard_"

// Names of the objects that are there once.
const (
	chainGuardForward = guardPrefix + "forward"
	chainGuardUplink  = guardPrefix + "uplink"
	setUplinks        = guardPrefix + "uplinks"
	mapGuardPorts     = guardPrefix + "ports"
	counterInvalid    = guardPrefix + "invalid"
	counterInbound    = guardPrefix + "inbound"

	chainClassify  = "classify"
	chainClients   = "clients"
	chainKeep      = "keep"
	chainKeepCli   = "keep_client"
	chainKeepUp    = "keep_uplink"
	chainOutput    = "output_raw"
	chainTranslate = "translate"
	chainTransUp   = "translate_uplink"
	mapRaw         = "raw_entry"
	mapMangle      = "mangle_entry"
	mapClients4    = "clients4"
	mapClients6    = "clients6"
	setExempt4     = "exempt4"
	setExempt6     = "exempt6"
	mapPools       = "pools"
	mapSpreads     = "spreads"

	chainFast     = "fast"
	chainFastAdd  = "fast_add"
	mapFastPorts  = "fast_ports"
	flowtableFast = "fast_path"

	chainDecideDrop      = "decide_drop"
	chainDecideReject    = "decide_reject"
	chainDecideUnmatched = "decide_unmatched"
	chainDenyNewDrop     = "deny_new_drop"
	chainDenyNewReject   = "deny_new_reject"
	chainDenyDrop        = "deny_drop"
	chainDenyReject      = "deny_reject"
	chainDenyUnmatched   = "deny_unmatched"
	counterDrop          = "drop_rule"
	counterReject        = "reject_rule"
	counterUnmatched     = "drop_unmatched"
	counterNoAddress     = "drop_no_address"
	counterMidstream     = "reject_midstream"
	counterNew           = "drop_new"
)

// Prefixes of the names of objects per network, exit, spread, pool and policy.
const (
	prefixGuardNet   = guardPrefix + "net_"
	prefixGuard4     = guardPrefix + "sources4_"
	prefixGuard6     = guardPrefix + "sources6_"
	prefixGuardMarks = guardPrefix + "marks_"
	prefixGuardDrops = guardPrefix + "drops_"
	prefixFast       = "fast_net_"
	prefixUplink     = "uplink_"
	prefixUplink4    = "uplink4_"
	prefixUplink6    = "uplink6_"
	prefixZone       = "zone_"
	prefixExit       = "exit_"
	prefixSpread     = "spread_"
	prefixChoose     = "choose_"
	prefixBuckets    = "buckets_"
	prefixSnat       = "snat_"
	prefixPool4      = "pool4_"
	prefixPool6      = "pool6_"
	prefixPolicy     = "policy_"
	prefixDst4       = "dst4_"
	prefixDst6       = "dst6_"
)

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// objectName names the object of a network, exit, spread, pool or policy. All our prefixes
// keep clear of nft's reserved words. Names that nft cannot spell become a
// readable part, a slash (which no plain name has) and a hash.
func objectName(prefix, name string) string {
	if plainName.MatchString(name) {
		return prefix + name
	}
	clean := strings.Map(func(r rune) rune {
		if r < 0x80 && plainName.MatchString(string(r)) {
			return r
		}
		return '_'
	}, name)
	sum := sha256.Sum256([]byte(name))
	return prefix + clean[:min(len(clean), 40)] + "/" + hex.EncodeToString(sum[:6])
}

var deviceName = regexp.MustCompile(`^[^"\\*/\s\x00-\x1f\x7f]{1,15}$`)

// deviceKey is a device's element of a set. It is quoted, since a device may be
// called like a word of nft's.
func deviceKey(name string) string {
	if !deviceName.MatchString(name) {
		panic(fmt.Sprintf("nat: %q is no device name", name))
	}
	return `"` + name + `"`
}
