// Package bgp runs one embedded GoBGP server per external network, each bound
// to its VRF device, so that equal peer addresses and router ids in different
// networks do no harm. Set is total: it takes the whole desired configuration
// and changes what differs. Learned routes are reported, never installed here.
//
// GoBGP holds the sessions and the Adj-RIB-In; nothing a peer sends ever enters
// its global table (the import policy there accepts local paths only), so one
// peer's routes cannot reach another: there is no transit to filter away. Import
// rules and the choice of the best paths are this package's own (rib.go), which
// makes every change of them a recomputation instead of a session reset, gives
// exact counts, and takes nothing from GoBGP's package-wide selection options.
//
// All use of the GoBGP API is in this package's files gobgp*.go.
package bgp

import (
	"net/netip"
	"time"
)

// Config is the speaker of one network.
type Config struct {
	// Network is the network's name, the key of this Config.
	Network string
	// Device is the VRF device the sockets are bound to ("" is the default VRF).
	Device   string
	ASN      uint32
	RouterID netip.Addr
	// ListenPort is the TCP port peers connect to; 0 means 179, -1 none.
	ListenPort int
	Peers      []Peer
	// Advertise are the prefixes to export now; nothing else ever is.
	Advertise []Advertisement
	// Draining asks peers to move traffic away before the prefixes are withdrawn:
	// they are sent again with GRACEFUL_SHUTDOWN, and with LOCAL_PREF 0 to
	// internal peers (RFC 8326).
	Draining bool
	// Reject are prefixes never accepted from a peer, nor parts of them: the
	// network's own pools.
	Reject []netip.Prefix
	// GracefulRestart (RFC 4724) when not nil.
	GracefulRestart *GracefulRestart
	// Restarting announces the restart state (R bit, F bits) to peers: the data
	// plane was found forwarding when this process started. It only matters when
	// the network's server is first started, and only with GracefulRestart. The
	// Advertise of that first Set must be complete: what is missing from it is
	// gone from the peers at our End-of-RIB, about a second after a session came
	// up.
	Restarting bool
}

// GracefulRestart are the RFC 4724 timers.
type GracefulRestart struct {
	// RestartTime is announced to peers and bounds how long we wait for
	// End-of-RIB after our own restart; whole seconds, 1 s to 4095 s.
	RestartTime time.Duration
	// LongLived is announced to peers as the time for which they may keep our
	// routes beyond RestartTime, as a last resort (RFC 9494); whole seconds up to
	// 16777215 s, 0 is none. With it we do the same for them.
	LongLived time.Duration
}

// Peer is one neighbour, or all that dial us from a range of addresses.
type Peer struct {
	// Address may be link-local with the zone of its interface.
	Address netip.Addr
	// Range instead of Address takes sessions from every address in it; they are
	// never dialled. Ranges do not overlap, and have no other peer's Address in
	// them.
	Range netip.Prefix
	// MaxSessions bounds the sessions of a Range; 0 means 64.
	MaxSessions int
	// Description is for people.
	Description string
	ASN         uint32
	// LocalASN is our ASN in this session, 0 for that of the Config. The peer then
	// sees no other.
	LocalASN uint32
	// PasswordFile or PasswordEnv name where the TCP-MD5 password (RFC 2385) is: a
	// file with one line, or an environment variable. It has at most 80 bytes. If
	// it cannot be read the peer is not set up, or stays as it is.
	PasswordFile, PasswordEnv string
	// Shutdown keeps the session down, and ends it with ShutdownMessage (RFC
	// 9003), at most 128 bytes.
	Shutdown        bool
	ShutdownMessage string
	// Down, when not empty, is why the path to the peer is known to be broken (its
	// BFD session is down, RFC 5882 10.2): the session ends and stays down, and
	// what the peer sent is forgotten at once, whatever graceful restart says.
	Down string `json:",omitempty"`
	// Port is the peer's TCP port; 0 means 179.
	Port uint16
	// Passive peers are never dialled.
	Passive bool
	// LocalAddress is the address sessions are dialled from and expected at; the
	// zero value leaves it to the kernel.
	LocalAddress netip.Addr
	// HoldTime is 0 for the default of 90 s, else whole seconds >= 3 s (RFC 4271
	// 4.2).
	HoldTime time.Duration
	// KeepaliveTime is 0 for a third of HoldTime, else whole seconds.
	KeepaliveTime time.Duration
	// ConnectRetry is 0 for 5 s, else whole seconds. The first attempt is made
	// 1.5 s to 2 s after the start whatever it says.
	ConnectRetry time.Duration
	// Multihop is the TTL for eBGP beyond one hop; 0 means directly connected.
	Multihop uint8
	// TTLSecurity is how many hops away the peer may be by the TTL of its packets,
	// which it sends with 255 (GTSM, RFC 5082); 0 does not look. It excludes
	// Multihop, and peers that dial us over IPv6: GoBGP answers those with the
	// kernel's hop limit, which they refuse in turn.
	TTLSecurity uint8
	// IPv4 and IPv6 are the address families negotiated; neither means the
	// family of Address.
	IPv4, IPv6 bool
	// ExtendedNextHop announces IPv4 prefixes over an IPv6 session with the
	// session's own address as next hop (RFC 8950). Received ones are taken in any
	// case.
	ExtendedNextHop bool
	// AddPath takes several paths to one prefix from the peer (RFC 7911).
	AddPath bool
	// NextHopIPv4 is the next hop announced for IPv4 prefixes over an IPv6
	// session and NextHopIPv6 the one for IPv6 prefixes over an IPv4 session,
	// where the session's own address is of no use. Without it the prefixes of
	// that family are not advertised to this peer.
	NextHopIPv4, NextHopIPv6 netip.Addr
	// Import lists what is accepted: the first rule that matches decides. Empty
	// accepts nothing (RFC 8212).
	Import []ImportRule
	// MaxPrefixes per family closes the session when exceeded (Cease, RFC 4486
	// subcode 1); 0 is unlimited. With add-path, paths are counted.
	MaxPrefixes uint32
	// MaxPrefixesWarning is the share of MaxPrefixes, in percent, beyond which a
	// warning is given; 0 is none.
	MaxPrefixesWarning uint8
	// MaxPrefixesWarnOnly warns at MaxPrefixes as well, and leaves the session.
	MaxPrefixesWarnOnly bool
	// MaxPrefixesRestart is how long a session stays closed; 0 is a minute.
	MaxPrefixesRestart time.Duration
	// Export replaces attributes of all prefixes sent to this peer: those that
	// are not nil, also by an empty list. LocalPref is at least 1.
	Export Attributes
}

// ImportRule accepts, or with Reject refuses, the paths to prefixes within Prefix
// whose length is between Min and Max, if they have what the other fields say.
type ImportRule struct {
	Prefix   netip.Prefix
	Min, Max int
	// ASPath is a regular expression (see CompileASPath); "" is any path.
	ASPath string
	// Communities and LargeCommunities: the path has one of them, of either
	// kind; none named is any path.
	Communities      []uint32
	LargeCommunities []LargeCommunity
	Reject           bool
	// LocalPref is the preference of what is accepted, instead of 100 or what an
	// internal peer says.
	LocalPref *uint32
}

// Advertisement is one prefix exported to all peers of the network that
// negotiated its family, with the session's own address as next hop.
type Advertisement struct {
	Prefix netip.Prefix
	Attributes
}

// State is what a network's server knows now.
type State struct {
	Network string
	Peers   []PeerState
	// Routes are the accepted paths, the current set per prefix, sorted.
	Routes []Route
	// Synced is true once every configured peer came up and sent End-of-RIB for
	// all families negotiated, or the restart time (a minute without
	// GracefulRestart) has passed since the network was first set. It never
	// turns false again.
	Synced bool
	// Err is why the server does not run, or not as configured. The next Set
	// tries again.
	Err error
}

// Route is one prefix learned, with the next hops of its best paths of equal
// cost, sorted, as the peers sent them: perhaps off the link, of the other family
// (RFC 8950), or link-local with the zone of the session's interface.
type Route struct {
	Prefix   netip.Prefix
	NextHops []netip.Addr
}

// PeerState is one session.
type PeerState struct {
	Address netip.Addr
	// Range is the range of Config that the session came from, if any.
	Range       netip.Prefix
	Description string
	ASN         uint32
	// Shutdown is true while the configuration keeps the session down.
	Shutdown bool
	// State is the RFC 4271 8.2.2 state, lower case: "idle", "connect",
	// "active", "opensent", "openconfirm", "established".
	State string
	Since time.Time
	// RouterID is the peer's, invalid while the session is down.
	RouterID netip.Addr
	// Capabilities are those that both sides announced, sorted; nil while the
	// session is down.
	Capabilities []string
	// LastError is the last NOTIFICATION or transport error, decoded.
	LastError string
	// Received counts prefixes in Adj-RIB-In, Accepted those that passed import,
	// Advertised those in Adj-RIB-Out.
	Received, Accepted, Advertised int
	// Warning is what is not as it should be while the session goes on.
	Warning string
	// ImportMissing is true for a peer without an import list: RFC 8212 says
	// that it contributes nothing.
	ImportMissing bool
	// Flaps counts the times the session left established.
	Flaps int
}
