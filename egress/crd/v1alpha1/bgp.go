package v1alpha1

// BGP is a network's speaker.
type BGP struct {
	// ASN is our AS number: 1 to 4294967294 without 23456 and 65535.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	ASN *int64 `json:"asn,omitempty"`
	// RouterID has the form of an IPv4 address. Without one it is the first IPv4 address
	// of the interfaces.
	//
	// +optional
	RouterID string `json:"routerID,omitempty"`
	// ListenPort is the TCP port that peers connect to; -1 does not listen, 179 unless
	// set.
	//
	// +optional
	ListenPort *int64 `json:"listenPort,omitempty"`
	// GracefulRestart: peers keep our routes while the gateway restarts.
	//
	// +optional
	GracefulRestart GracefulRestart `json:"gracefulRestart,omitzero"`
	// Advertise are prefixes that are advertised while the network is up, beside its
	// pools.
	//
	// +optional
	// +listType=atomic
	Advertise []Advertise `json:"advertise,omitempty"`
	// Peers are the neighbours, at least one.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Peers []Peer `json:"peers,omitempty"`
}

// Advertise is a prefix that is advertised by name.
type Advertise struct {
	// Prefix to advertise.
	//
	// +required
	Prefix string `json:"prefix,omitempty"`
	// Communities that are sent, such as no-export, 64512:100 or 64512:1:2.
	//
	// +optional
	// +listType=atomic
	Communities []string `json:"communities,omitempty"`
	// MED is the metric that is sent.
	//
	// +optional
	MED *int64 `json:"med,omitempty"`
	// LocalPref is the preference; only for peers in our own AS.
	//
	// +optional
	LocalPref *int64 `json:"localPref,omitempty"`
	// Prepend is how often our AS number is added to the path.
	//
	// +optional
	Prepend *int64 `json:"prepend,omitempty"`
}

// Export replaces attributes of what one peer is sent. An empty list of
// communities differs from none.
type Export struct {
	// Communities in place of all others; [] removes them.
	//
	// +optional
	// +listType=atomic
	Communities []string `json:"communities,omitzero"`
	// MED in place of the other.
	//
	// +optional
	MED *int64 `json:"med,omitempty"`
	// LocalPref in place of the other; only for a peer in our own AS.
	//
	// +optional
	LocalPref *int64 `json:"localPref,omitempty"`
	// Prepend in place of the other; not for a peer in our own AS.
	//
	// +optional
	Prepend *int64 `json:"prepend,omitempty"`
}

// GracefulRestart is RFC 4724.
type GracefulRestart struct {
	// Enabled unless it is false.
	//
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
	// RestartTime is how long peers wait for us, in whole seconds up to 4095s; 30s unless
	// set.
	//
	// +optional
	RestartTime string `json:"restartTime,omitempty"`
	// LongLived is how long after that they keep our routes as a last resort (RFC 9494);
	// 0s unless set.
	//
	// +optional
	LongLived string `json:"longLived,omitempty"`
}

// Peer is one BGP neighbour, or a range of them.
type Peer struct {
	// Address of the neighbour; a link-local one with its interface: fe80::2%eth1.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Address string `json:"address,omitempty"`
	// Range, in place of an address: sessions are taken from every neighbour in it.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Range string `json:"range,omitempty"`
	// MaxSessions of a range at the same time, 1 to 4096; 64 unless set.
	//
	// +optional
	MaxSessions *int64 `json:"maxSessions,omitempty"`
	// Description is one line for people.
	//
	// +optional
	Description string `json:"description,omitempty"`
	// ASN is the neighbour's AS number.
	//
	// +optional
	ASN *int64 `json:"asn,omitempty"`
	// LocalASN is our AS number for this neighbour; only for one in another AS.
	//
	// +optional
	LocalASN *int64 `json:"localASN,omitempty"`
	// Port is the neighbour's TCP port; 179 unless set.
	//
	// +optional
	Port *int64 `json:"port,omitempty"`
	// Passive waits for the neighbour to connect.
	//
	// +optional
	Passive bool `json:"passive,omitempty"`
	// Password is the session's (TCP-MD5), in a Secret of Egret's own namespace. It
	// stands in place of the file's passwordFile and passwordEnv.
	//
	// +optional
	Password *Password `json:"password,omitempty"`
	// Shutdown keeps the session down.
	//
	// +optional
	Shutdown bool `json:"shutdown,omitempty"`
	// ShutdownMessage is told to the neighbour (RFC 9003).
	//
	// +optional
	ShutdownMessage string `json:"shutdownMessage,omitempty"`
	// HoldTime: the session is lost after this time without a message, 3s to 65535s; 90s
	// unless set.
	//
	// +optional
	HoldTime string `json:"holdTime,omitempty"`
	// KeepaliveTime is from keepalive to keepalive; a third of holdTime unless set.
	//
	// +optional
	KeepaliveTime string `json:"keepaliveTime,omitempty"`
	// ConnectRetry is from one attempt to connect to the next; 5s unless set.
	//
	// +optional
	ConnectRetry string `json:"connectRetry,omitempty"`
	// Multihop is how many hops away a neighbour in another AS may be, 2 to 255; on the
	// link unless set.
	//
	// +optional
	Multihop *int64 `json:"multihop,omitempty"`
	// TTLSecurity, in place of multihop: how many hops away it may be by the TTL of its
	// packets (RFC 5082), 1 to 254.
	//
	// +optional
	TTLSecurity *int64 `json:"ttlSecurity,omitempty"`
	// Families to exchange: ipv4-unicast, ipv6-unicast; that of the address unless set.
	//
	// +optional
	// +listType=atomic
	Families []string `json:"families,omitempty"`
	// AddPath takes several paths to one prefix (RFC 7911).
	//
	// +optional
	AddPath bool `json:"addPath,omitempty"`
	// ExtendedNextHop announces IPv4 prefixes with our IPv6 address as next hop (RFC
	// 8950).
	//
	// +optional
	ExtendedNextHop bool `json:"extendedNextHop,omitempty"`
	// Import is what is accepted from this neighbour; without a list nothing is (RFC
	// 8212).
	//
	// +optional
	// +listType=atomic
	Import []Import `json:"import,omitempty"`
	// MaxPrefixes: more in one family are too many; 0 or absent is no limit.
	//
	// +optional
	MaxPrefixes *int64 `json:"maxPrefixes,omitempty"`
	// MaxPrefixesWarning: a warning comes beyond this share of the limit, in percent; 80
	// unless set.
	//
	// +optional
	MaxPrefixesWarning *int64 `json:"maxPrefixesWarning,omitempty"`
	// MaxPrefixesAction beyond the limit: close or warn.
	//
	// +optional
	MaxPrefixesAction string `json:"maxPrefixesAction,omitempty"`
	// MaxPrefixesRestart is how long the session stays closed, 1s to 24h; 1m unless set.
	//
	// +optional
	MaxPrefixesRestart string `json:"maxPrefixesRestart,omitempty"`
	// Export replaces attributes of what this neighbour is sent.
	//
	// +optional
	Export Export `json:"export,omitzero"`
	// BFD ends the session when a BFD session with the peer is lost; {} takes the
	// defaults.
	//
	// +optional
	BFD *PeerBFD `json:"bfd,omitempty"`
}

// PeerBFD ties a BGP session to a BFD session.
type PeerBFD struct {
	// Interval from packet to packet, 10ms to 1m; 300ms unless set.
	//
	// +optional
	Interval string `json:"interval,omitempty"`
	// Fall: so many packets must be missing, 2 to 255; 3 unless set.
	//
	// +optional
	Fall *int64 `json:"fall,omitempty"`
	// MaxHops is how many hops away the neighbour may be, 1 to 255; only beyond the link.
	//
	// +optional
	MaxHops *int64 `json:"maxHops,omitempty"`
}

// Password is where a password is.
type Password struct {
	// SecretKeyRef names a key of a Secret.
	//
	// +required
	SecretKeyRef SecretKeyRef `json:"secretKeyRef"`
}

// SecretKeyRef is a key of a Secret in Egret's own namespace.
type SecretKeyRef struct {
	// Name of the Secret.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// Key in the Secret.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// Import accepts prefixes from a peer.
type Import struct {
	// Prefix, and everything inside it.
	//
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// Min: only prefixes at least this long.
	//
	// +optional
	Min *int64 `json:"min,omitempty"`
	// Max: only prefixes at most this long.
	//
	// +optional
	Max *int64 `json:"max,omitempty"`
	// ASPath is a regular expression for the AS path as text, in which _ is also a
	// boundary.
	//
	// +optional
	ASPath string `json:"asPath,omitempty"`
	// Communities: one of them must be there.
	//
	// +optional
	// +listType=atomic
	Communities []string `json:"communities,omitempty"`
	// Action is accept or reject; accept unless set.
	//
	// +optional
	Action string `json:"action,omitempty"`
	// LocalPref is the preference of what matches; 100 unless set.
	//
	// +optional
	LocalPref *int64 `json:"localPref,omitempty"`
}
