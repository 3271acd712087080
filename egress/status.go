package egress

import (
	"net/netip"
	"time"

	"github.com/egret-router/egret/egress/drain"
)

// Status is what the user is told: one value for the CLI, the control socket,
// metrics and, later, Kubernetes conditions. Its JSON form is an interface:
// fields are only ever added.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Config says which configuration runs.
	Config   ConfigStatus    `json:"config"`
	Round    RoundStatus     `json:"round"`
	Networks []NetworkStatus `json:"networks"`
	Pools    []PoolStatus    `json:"pools"`
	Policies []PolicyStatus  `json:"policies"`
	// Conntrack is the state of the kernel's connection tracking when it was last
	// read; absent before.
	Conntrack *ConntrackStatus `json:"conntrack,omitempty"`
	// Drops are what the packet filter discarded, by reason, since its table was
	// made; at most as old as the period of Inspect.
	Drops []DropStatus `json:"drops,omitempty"`
	// ClientBGP is the speaker towards the clients' routers, if there is one.
	ClientBGP *ClientBGPStatus `json:"clientBGP,omitempty"`
	// ProbeCost is what probes of the types icmp and arp-nd have taken.
	ProbeCost *ProbeCostStatus `json:"probeCost,omitempty"`
	// Timings are how long the stages of failovers took since the start.
	Timings []Timing `json:"timings,omitempty"`
	// Problems are what others do in this kernel that could hurt our traffic.
	Problems []string `json:"problems,omitempty"`
}

// ConntrackStatus is the kernel's connection tracking in this namespace.
type ConntrackStatus struct {
	At         time.Time `json:"at"`
	Flows      uint64    `json:"flows"`
	MaxFlows   uint64    `json:"maxFlows"`
	Translated int       `json:"translated"`
	// InsertFailed counts packets dropped because no port was free, Drop new flows
	// refused because the table was full, EarlyDrop flows ended to make room.
	InsertFailed uint64 `json:"insertFailed"`
	Drop         uint64 `json:"drop"`
	EarlyDrop    uint64 `json:"earlyDrop"`
}

// ConfigStatus is the state of the configuration.
type ConfigStatus struct {
	LoadedAt time.Time `json:"loadedAt"`
	// Error is why the last reload was refused; the running configuration is
	// then older than the file.
	Error string `json:"error,omitempty"`
	// Rejected counts reloads refused since the start.
	Rejected uint64 `json:"rejected"`
}

// RoundStatus is what the loop did.
type RoundStatus struct {
	Count uint64 `json:"count"`
	// Operations counts changes made to the kernel since the start.
	Operations uint64            `json:"operations"`
	Repairs    uint64            `json:"repairs"`
	Errors     map[string]uint64 `json:"errors,omitempty"`
	// LastError is the error of the last round, empty when it was clean.
	LastError    string        `json:"lastError,omitempty"`
	LastDuration time.Duration `json:"lastDurationNanoseconds"`
	// LastRepair is the time from the first kernel event to the end of the round
	// that repaired what it announced.
	LastRepair time.Duration `json:"lastRepairNanoseconds,omitempty"`
}

// Phase is the state of an object in one word.
type Phase string

// The phases of a network.
const (
	PhaseUp    Phase = "Up"
	PhaseDown  Phase = "Down"
	PhaseError Phase = "Error"
	// PhaseDraining: it works, and is being or has been taken out of use (Drain).
	PhaseDraining Phase = "Draining"
)

// NetworkStatus is one network.
type NetworkStatus struct {
	Name   string    `json:"name"`
	Phase  Phase     `json:"phase"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`

	Index uint16       `json:"index"`
	Table uint32       `json:"table"`
	Zone  uint16       `json:"zone"`
	Mark  string       `json:"mark"`
	Ports []PortStatus `json:"ports"`

	StaticRoutes     int  `json:"staticRoutes"`
	LearnedRoutes    int  `json:"learnedRoutes"`
	UnresolvedRoutes int  `json:"unresolvedRoutes"`
	Stale            bool `json:"stale,omitempty"`

	NextHops []NextHopStatus `json:"nextHops"`
	// Paths are those of rules with next hops or a bound of their own; Exhausted
	// counts those that found no number, whose traffic is dropped.
	Paths     []PathStatus `json:"paths,omitempty"`
	Exhausted int          `json:"exhaustedPaths,omitempty"`
	Peers     []PeerStatus `json:"peers"`
	// Drain is there while the network is drained.
	Drain *DrainStatus `json:"drain,omitempty"`
	// Probes are those of the network, and then those of its next hops.
	Probes []ProbeStatus `json:"probes"`
}

// DrainStatus is the drain of a network.
type DrainStatus struct {
	// Stage is lowered (routers are asked to prefer others), refusing (no new flows
	// are taken) or withdrawn.
	Stage drain.Stage `json:"stage"`
	Since time.Time   `json:"since"`
	// RefuseAt and Deadline are when the next stages begin at the latest; Withdrawn
	// is when the last one began.
	RefuseAt  time.Time `json:"refuseAt"`
	Deadline  time.Time `json:"deadline"`
	Withdrawn time.Time `json:"withdrawn,omitzero"`
	Cut       bool      `json:"cut,omitempty"`
	// Flows is the number of flows when they were last counted, connections that
	// have ended not among them. Of FlowsBegun that there were when no new ones
	// were taken any more, FlowsEnded ended by themselves before the withdrawal,
	// and FlowsLeft did not. They mean nothing until Counted.
	Flows      int  `json:"flows"`
	Counted    bool `json:"counted"`
	FlowsBegun int  `json:"flowsBegun"`
	FlowsEnded int  `json:"flowsEnded"`
	FlowsLeft  int  `json:"flowsLeft"`
}

// PortStatus is one uplink.
type PortStatus struct {
	Name    string `json:"name"`
	Present bool   `json:"present"`
	Up      bool   `json:"up"`
	Carrier bool   `json:"carrier"`
}

// NextHopStatus is one gateway of a network.
type NextHopStatus struct {
	Address netip.Addr `json:"address"`
	Device  string     `json:"device,omitempty"`
	// Live means that its device has carrier; Usable that it may carry traffic.
	Live   bool `json:"live"`
	Usable bool `json:"usable"`
	Routes int  `json:"routes"`
	// Paths counts the paths that use it.
	Paths  int    `json:"paths"`
	Reason string `json:"reason,omitempty"`
}

// PathStatus is one choice of next hops: a mark and a table.
type PathStatus struct {
	Number uint16 `json:"number"`
	Table  uint32 `json:"table"`
	Mark   string `json:"mark"`
	IPv6   bool   `json:"ipv6,omitempty"`
	// State is active (takes new flows), draining (kept for its flows).
	State  string `json:"state"`
	Usable bool   `json:"usable"`
	// NextHops are in use; Spare would stand in for them, in this order. Both are
	// empty for a path over the network's routes.
	NextHops []netip.Addr `json:"nextHops,omitempty"`
	Spare    []netip.Addr `json:"spare,omitempty"`
	// Flows is the number of flows when they were last counted.
	Flows int `json:"flows,omitempty"`
}

// PeerStatus is one BGP session.
type PeerStatus struct {
	Address       netip.Addr `json:"address"`
	ASN           uint32     `json:"asn"`
	State         string     `json:"state"`
	Since         time.Time  `json:"since"`
	LastError     string     `json:"lastError,omitempty"`
	Received      int        `json:"received"`
	Accepted      int        `json:"accepted"`
	Advertised    int        `json:"advertised"`
	Flaps         int        `json:"flaps"`
	ImportMissing bool       `json:"importMissing,omitempty"`
	// Range is the configured range that the session came from, if any.
	Range       netip.Prefix `json:"range,omitzero"`
	Description string       `json:"description,omitempty"`
	// Shutdown is true while the configuration keeps the session down.
	Shutdown bool `json:"shutdown,omitempty"`
	// RouterID and Capabilities (of both sides) are of the session that is up.
	RouterID     netip.Addr `json:"routerID,omitzero"`
	Capabilities []string   `json:"capabilities,omitempty"`
	// Warning is what is not as it should be while the session goes on.
	Warning string `json:"warning,omitempty"`
}

// ProbeStatus is one probe, those of next hops among them.
type ProbeStatus struct {
	Name    string              `json:"name"`
	Verdict string              `json:"verdict"`
	Since   time.Time           `json:"since"`
	Targets []ProbeTargetStatus `json:"targets"`
	// BFD is there for a BFD session, whose one target has no attempts.
	BFD *BFDStatus `json:"bfd,omitempty"`
	// PacketsPerSecond is what the probe sends and receives while its targets
	// answer, for http an estimate; 0 for BFD, whose status has its intervals.
	PacketsPerSecond float64 `json:"packetsPerSecond,omitempty"`
}

// ProbeCostStatus is what probing took; see probes.Cost.
type ProbeCostStatus struct {
	Since    time.Time     `json:"since"`
	CPU      time.Duration `json:"cpuNanoseconds"`
	Attempts uint64        `json:"attempts"`
}

// ProbeTargetStatus is one target of a probe.
type ProbeTargetStatus struct {
	Target    string        `json:"target"`
	Verdict   string        `json:"verdict"`
	LastRTT   time.Duration `json:"lastRTTNanoseconds"`
	LastError string        `json:"lastError,omitempty"`
	Attempts  uint64        `json:"attempts"`
	Failures  uint64        `json:"failures"`
	// Suppressed says that damping keeps the target down; HeldUntil is, while it
	// answers, when it can be up again at the earliest.
	Suppressed bool      `json:"suppressed,omitempty"`
	HeldUntil  time.Time `json:"heldUntil,omitzero"`
}

// PoolStatus is one pool.
type PoolStatus struct {
	Name     string         `json:"name"`
	Network  string         `json:"network"`
	Prefixes []netip.Prefix `json:"prefixes"`
	// Addresses4 and Addresses6 are the addresses clients are spread over.
	Addresses4 int `json:"addresses4"`
	Addresses6 int `json:"addresses6"`
	// Stickiness is client or flow.
	Stickiness string `json:"stickiness"`
	// Flows is the number of flows with an address of the pool when they were last
	// counted. Fullest is the address and destination that has most of the ports
	// there are for it, PortsUsed of PortsMax: at the end further flows to that
	// destination are dropped.
	Flows     int    `json:"flows"`
	Fullest   string `json:"fullest,omitempty"`
	PortsUsed int    `json:"portsUsed,omitempty"`
	PortsMax  int    `json:"portsMax,omitempty"`
	// Advertised means that the speaker was told to; Reason says why not.
	Advertised bool   `json:"advertised"`
	Reason     string `json:"reason,omitempty"`
}

// PolicyStatus is one policy.
type PolicyStatus struct {
	Name    string         `json:"name"`
	Clients []netip.Prefix `json:"clients"`
	// Missing: clients are bound to a policy that does not exist, and blocked.
	Missing bool         `json:"missing,omitempty"`
	Rules   []RuleStatus `json:"rules"`
}

// RuleStatus is one rule of a policy.
type RuleStatus struct {
	Destination netip.Prefix `json:"destination"`
	Action      Action       `json:"action"`
	Network     string       `json:"network,omitempty"`
	Pool        string       `json:"pool,omitempty"`
	NextHops    []netip.Addr `json:"nextHops,omitempty"`
	MaxNextHops int          `json:"maxNextHops,omitempty"`
	// Forwarding is false while the rule's traffic is dropped or rejected.
	Forwarding bool `json:"forwarding"`
}
