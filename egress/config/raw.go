package config

// Raw is the configuration as written: every field optional, nothing checked
// but its type. Numbers and the strings whose absence differs from their zero
// value are pointers.
type Raw struct {
	Clients   RawClients   `mapstructure:"clients"`
	Networks  []RawNetwork `mapstructure:"networks"`
	Pools     []RawPool    `mapstructure:"pools"`
	Policies  []RawPolicy  `mapstructure:"policies"`
	Bindings  []RawBinding `mapstructure:"bindings"`
	Metrics   RawMetrics   `mapstructure:"metrics"`
	RunDir    string       `mapstructure:"runDir"`
	BFD       RawBFD       `mapstructure:"bfd"`
	Resync    Duration     `mapstructure:"resync"`
	Flowtable *bool        `mapstructure:"flowtable"`
	Drain     RawDrain     `mapstructure:"drain"`
	Shutdown  string       `mapstructure:"shutdown"`
	Ownership RawOwnership `mapstructure:"ownership"`
}

// RawBFD is for all BFD sessions.
type RawBFD struct {
	Linger Duration `mapstructure:"linger"`
}

// Duration is written as time.ParseDuration reads it: "300ms", "1m30s". The
// empty Duration is an absent one.
type Duration string

// RawClients is where client traffic enters.
type RawClients struct {
	Interfaces  []string `mapstructure:"interfaces"`
	Prefixes    []string `mapstructure:"prefixes"`
	Unmatched   string   `mapstructure:"unmatched"`
	ReturnTable *int64   `mapstructure:"returnTable"`

	BGP *RawClientBGP `mapstructure:"bgp"`
}

// RawClientBGP is the speaker towards the clients' routers.
type RawClientBGP struct {
	ASN             *int64               `mapstructure:"asn"`
	RouterID        string               `mapstructure:"routerID"`
	ListenPort      *int64               `mapstructure:"listenPort"`
	GracefulRestart RawGracefulRestart   `mapstructure:"gracefulRestart"`
	Peers           []RawPeer            `mapstructure:"peers"`
	Policies        *bool                `mapstructure:"policies"`
	Communities     []string             `mapstructure:"communities"`
	MED             *int64               `mapstructure:"med"`
	LocalPref       *int64               `mapstructure:"localPref"`
	Prepend         *int64               `mapstructure:"prepend"`
	Advertise       []RawClientAdvertise `mapstructure:"advertise"`
}

// RawClientAdvertise is a destination that clients reach by this gateway while
// networks are up.
type RawClientAdvertise struct {
	Prefix      string   `mapstructure:"prefix"`
	Networks    []string `mapstructure:"networks"`
	Communities []string `mapstructure:"communities"`
	MED         *int64   `mapstructure:"med"`
	LocalPref   *int64   `mapstructure:"localPref"`
	Prepend     *int64   `mapstructure:"prepend"`
}

// RawNetwork is one external network.
type RawNetwork struct {
	Name         string           `mapstructure:"name"`
	Table        *int64           `mapstructure:"table"`
	Interfaces   []RawInterface   `mapstructure:"interfaces"`
	Addresses    []string         `mapstructure:"addresses"`
	StaticRoutes []RawStaticRoute `mapstructure:"staticRoutes"`
	BGP          *RawBGP          `mapstructure:"bgp"`
	Probes       []RawProbe       `mapstructure:"probes"`
	MaxNextHops  *int64           `mapstructure:"maxNextHops"`
	OnNoNextHop  string           `mapstructure:"onNoNextHop"`
	Failback     string           `mapstructure:"failback"`

	NextHopProbes []RawNextHopProbe `mapstructure:"nextHopProbes"`
}

// RawInterface is an uplink. In a file a plain string stands for {name: it}.
type RawInterface struct {
	Name      string   `mapstructure:"name"`
	VLAN      *RawVLAN `mapstructure:"vlan"`
	Addresses []string `mapstructure:"addresses"`
}

// RawVLAN makes an interface an 802.1Q device that is created by us.
type RawVLAN struct {
	Parent string `mapstructure:"parent"`
	ID     *int64 `mapstructure:"id"`
}

// RawStaticRoute is a route through gateways.
type RawStaticRoute struct {
	Prefix   string       `mapstructure:"prefix"`
	NextHops []RawNextHop `mapstructure:"nextHops"`
}

// RawNextHop is a gateway. In a file a plain string stands for {address: it}.
type RawNextHop struct {
	Address    string `mapstructure:"address"`
	Weight     *int64 `mapstructure:"weight"`
	Preference *int64 `mapstructure:"preference"`
}

// RawBGP is a network's speaker.
type RawBGP struct {
	ASN             *int64             `mapstructure:"asn"`
	RouterID        string             `mapstructure:"routerID"`
	ListenPort      *int64             `mapstructure:"listenPort"`
	GracefulRestart RawGracefulRestart `mapstructure:"gracefulRestart"`
	Advertise       []RawAdvertise     `mapstructure:"advertise"`
	Peers           []RawPeer          `mapstructure:"peers"`
}

// RawAdvertise is a prefix that is advertised by name. In a file a plain string
// stands for {prefix: it}.
type RawAdvertise struct {
	Prefix      string   `mapstructure:"prefix"`
	Communities []string `mapstructure:"communities"`
	MED         *int64   `mapstructure:"med"`
	LocalPref   *int64   `mapstructure:"localPref"`
	Prepend     *int64   `mapstructure:"prepend"`
}

// RawExport replaces attributes of what one peer is sent. Communities that are
// an empty list differ from absent ones.
type RawExport struct {
	Communities []string `mapstructure:"communities"`
	MED         *int64   `mapstructure:"med"`
	LocalPref   *int64   `mapstructure:"localPref"`
	Prepend     *int64   `mapstructure:"prepend"`
}

// RawGracefulRestart is RFC 4724.
type RawGracefulRestart struct {
	Enabled     *bool    `mapstructure:"enabled"`
	RestartTime Duration `mapstructure:"restartTime"`
	LongLived   Duration `mapstructure:"longLived"`
}

// RawPeer is one BGP neighbour, or a range of them.
type RawPeer struct {
	Address            string      `mapstructure:"address"`
	Range              string      `mapstructure:"range"`
	MaxSessions        *int64      `mapstructure:"maxSessions"`
	Description        string      `mapstructure:"description"`
	ASN                *int64      `mapstructure:"asn"`
	LocalASN           *int64      `mapstructure:"localASN"`
	Port               *int64      `mapstructure:"port"`
	Passive            bool        `mapstructure:"passive"`
	PasswordFile       string      `mapstructure:"passwordFile"`
	PasswordEnv        string      `mapstructure:"passwordEnv"`
	Shutdown           bool        `mapstructure:"shutdown"`
	ShutdownMessage    string      `mapstructure:"shutdownMessage"`
	HoldTime           Duration    `mapstructure:"holdTime"`
	KeepaliveTime      Duration    `mapstructure:"keepaliveTime"`
	ConnectRetry       Duration    `mapstructure:"connectRetry"`
	Multihop           *int64      `mapstructure:"multihop"`
	TTLSecurity        *int64      `mapstructure:"ttlSecurity"`
	Families           []string    `mapstructure:"families"`
	AddPath            bool        `mapstructure:"addPath"`
	ExtendedNextHop    bool        `mapstructure:"extendedNextHop"`
	Import             []RawImport `mapstructure:"import"`
	MaxPrefixes        *int64      `mapstructure:"maxPrefixes"`
	MaxPrefixesWarning *int64      `mapstructure:"maxPrefixesWarning"`
	MaxPrefixesAction  string      `mapstructure:"maxPrefixesAction"`
	MaxPrefixesRestart Duration    `mapstructure:"maxPrefixesRestart"`
	Export             RawExport   `mapstructure:"export"`
	BFD                *RawPeerBFD `mapstructure:"bfd"`
}

// RawPeerBFD ties a BGP session to a BFD session. An empty one takes what the
// BFD sessions with next hops have, or the defaults.
type RawPeerBFD struct {
	Interval Duration `mapstructure:"interval"`
	Fall     *int64   `mapstructure:"fall"`
	MaxHops  *int64   `mapstructure:"maxHops"`
}

// RawImport accepts prefixes from a peer. In a file a plain string stands for
// {prefix: it}: that prefix and everything inside; "default" for the default
// routes alone.
type RawImport struct {
	Prefix      string   `mapstructure:"prefix"`
	Min         *int64   `mapstructure:"min"`
	Max         *int64   `mapstructure:"max"`
	ASPath      string   `mapstructure:"asPath"`
	Communities []string `mapstructure:"communities"`
	Action      string   `mapstructure:"action"`
	LocalPref   *int64   `mapstructure:"localPref"`
}

// Quorum is any, all or a number, which may be written with or without quotes.
type Quorum string

// RawProbe is a health check.
type RawProbe struct {
	Name           string      `mapstructure:"name"`
	Type           string      `mapstructure:"type"`
	Targets        []RawTarget `mapstructure:"targets"`
	Interval       Duration    `mapstructure:"interval"`
	AttemptTimeout Duration    `mapstructure:"attemptTimeout"`
	Rise           *int64      `mapstructure:"rise"`
	Fall           *int64      `mapstructure:"fall"`
	HoldDown       Duration    `mapstructure:"holdDown"`
	Damping        RawDamping  `mapstructure:"damping"`
	Require        Quorum      `mapstructure:"require"`
	Source         string      `mapstructure:"source"`
	Interface      string      `mapstructure:"interface"`
	HTTP           *RawHTTP    `mapstructure:"http"`
	DNS            *RawDNS     `mapstructure:"dns"`
}

// RawTarget is what a probe asks. In a file a plain string stands for
// {target: it}.
type RawTarget struct {
	Target string `mapstructure:"target"`
	Source string `mapstructure:"source"`
}

// RawDamping is the suppression of targets that flap.
type RawDamping struct {
	Enabled     *bool    `mapstructure:"enabled"`
	Penalty     *int64   `mapstructure:"penalty"`
	Suppress    *int64   `mapstructure:"suppress"`
	Reuse       *int64   `mapstructure:"reuse"`
	HalfLife    Duration `mapstructure:"halfLife"`
	MaxSuppress Duration `mapstructure:"maxSuppress"`
}

// RawDNS is what a DNS probe asks and expects.
type RawDNS struct {
	Name   string `mapstructure:"name"`
	Type   string `mapstructure:"type"`
	RCode  string `mapstructure:"rcode"`
	Answer string `mapstructure:"answer"`
}

// RawNextHopProbe is a health check of every next hop.
type RawNextHopProbe struct {
	Name           string     `mapstructure:"name"`
	Type           string     `mapstructure:"type"`
	Interval       Duration   `mapstructure:"interval"`
	AttemptTimeout Duration   `mapstructure:"attemptTimeout"`
	Rise           *int64     `mapstructure:"rise"`
	Fall           *int64     `mapstructure:"fall"`
	HoldDown       Duration   `mapstructure:"holdDown"`
	Damping        RawDamping `mapstructure:"damping"`
}

// RawHTTP is what an HTTP probe sends and expects.
type RawHTTP struct {
	Method        string      `mapstructure:"method"`
	Host          string      `mapstructure:"host"`
	Headers       []RawHeader `mapstructure:"headers"`
	StatusMin     *int64      `mapstructure:"statusMin"`
	StatusMax     *int64      `mapstructure:"statusMax"`
	Body          string      `mapstructure:"body"`
	TLSServerName string      `mapstructure:"tlsServerName"`
	TLSInsecure   bool        `mapstructure:"tlsInsecure"`
	CAFile        string      `mapstructure:"caFile"`
}

// RawHeader is a header of a request.
type RawHeader struct {
	Name  string `mapstructure:"name"`
	Value string `mapstructure:"value"`
}

// RawPool is a set of egress addresses.
type RawPool struct {
	Name        string   `mapstructure:"name"`
	Network     string   `mapstructure:"network"`
	Prefixes    []string `mapstructure:"prefixes"`
	Advertise   string   `mapstructure:"advertise"`
	Communities []string `mapstructure:"communities"`
	MED         *int64   `mapstructure:"med"`
	LocalPref   *int64   `mapstructure:"localPref"`
	Prepend     *int64   `mapstructure:"prepend"`
	Stickiness  string   `mapstructure:"stickiness"`
}

// RawPolicy says which clients go where.
type RawPolicy struct {
	Name     string    `mapstructure:"name"`
	Clients  []string  `mapstructure:"clients"`
	Rules    []RawRule `mapstructure:"rules"`
	OnChange string    `mapstructure:"onChange"`
}

// RawBinding gives clients a policy by its name, which need not exist.
type RawBinding struct {
	Clients []string `mapstructure:"clients"`
	Policy  string   `mapstructure:"policy"`
}

// RawRule is one destination of a policy.
type RawRule struct {
	Destination string       `mapstructure:"destination"`
	Network     string       `mapstructure:"network"`
	Pool        string       `mapstructure:"pool"`
	NextHops    []RawNextHop `mapstructure:"nextHops"`
	MaxNextHops *int64       `mapstructure:"maxNextHops"`
	Action      string       `mapstructure:"action"`
	Description string       `mapstructure:"description"`
}

// RawMetrics is the Prometheus endpoint. Listen may be the empty string.
type RawMetrics struct {
	Listen *string `mapstructure:"listen"`
}

// RawDrain is what a drain does unless the one who asks says otherwise.
type RawDrain struct {
	Delay    Duration `mapstructure:"delay"`
	Deadline Duration `mapstructure:"deadline"`
}

// RawOwnership are the numbers by which our kernel objects are recognised.
type RawOwnership struct {
	Protocol        *int64   `mapstructure:"protocol"`
	LearnedProtocol *int64   `mapstructure:"learnedProtocol"`
	NextHopIDs      RawRange `mapstructure:"nextHopIDs"`
	RulePriorities  RawRange `mapstructure:"rulePriorities"`
	TableBase       *int64   `mapstructure:"tableBase"`
	ZoneBase        *int64   `mapstructure:"zoneBase"`
}

// RawRange is an inclusive range.
type RawRange struct {
	First *int64 `mapstructure:"first"`
	Last  *int64 `mapstructure:"last"`
}
