package v1alpha1

import "k8s.io/apimachinery/pkg/util/intstr"

// Probe is a health check of a network.
type Probe struct {
	// Name in status and metrics; the type and the position unless set.
	//
	// +optional
	Name string `json:"name,omitempty"`
	// Type is icmp, arp-nd, tcp, dns or http.
	//
	// +required
	Type string `json:"type,omitempty"`
	// Targets are what is asked, at most 256.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	Targets []Target `json:"targets,omitempty"`
	// Interval from attempt to attempt, 10ms to 1h; 300ms unless set.
	//
	// +optional
	Interval string `json:"interval,omitempty"`
	// AttemptTimeout is how long an attempt may take; the interval unless set.
	//
	// +optional
	AttemptTimeout string `json:"attemptTimeout,omitempty"`
	// Rise: so many attempts in a row must succeed to be up; 3 unless set.
	//
	// +optional
	Rise *int64 `json:"rise,omitempty"`
	// Fall: so many attempts in a row must fail to be down; 2 unless set.
	//
	// +optional
	Fall *int64 `json:"fall,omitempty"`
	// HoldDown is how long what was down must be healthy before it is up again; 0s unless
	// set.
	//
	// +optional
	HoldDown string `json:"holdDown,omitempty"`
	// Damping keeps down what goes down again and again (RFC 2439).
	//
	// +optional
	Damping Damping `json:"damping,omitzero"`
	// Require is any, all or a number of targets.
	//
	// +optional
	Require *intstr.IntOrString `json:"require,omitempty"`
	// Source address, one of the network's own.
	//
	// +optional
	Source string `json:"source,omitempty"`
	// Interface to ask on, for arp-nd only.
	//
	// +optional
	Interface string `json:"interface,omitempty"`
	// HTTP is what an http probe sends and expects.
	//
	// +optional
	HTTP *HTTP `json:"http,omitempty"`
	// DNS is what a dns probe asks and expects.
	//
	// +optional
	DNS *DNS `json:"dns,omitempty"`
}

// Target is what a probe asks.
type Target struct {
	// Target is an address; address:port for tcp and dns; a URL for http.
	//
	// +required
	Target string `json:"target,omitempty"`
	// Source address for this target alone.
	//
	// +optional
	Source string `json:"source,omitempty"`
}

// Damping is the suppression of targets that flap.
type Damping struct {
	// Enabled unless it is false.
	//
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
	// Penalty that one time of going down adds; 1000 unless set.
	//
	// +optional
	Penalty *int64 `json:"penalty,omitempty"`
	// Suppress is the penalty from which on a target is kept down; 4000 unless set.
	//
	// +optional
	Suppress *int64 `json:"suppress,omitempty"`
	// Reuse is the penalty below which it is released; 1000 unless set.
	//
	// +optional
	Reuse *int64 `json:"reuse,omitempty"`
	// HalfLife of penalties, 1s to 1h; 15s unless set.
	//
	// +optional
	HalfLife string `json:"halfLife,omitempty"`
	// MaxSuppress is after how long it is released at the latest, 1s to 1h; 60s unless
	// set.
	//
	// +optional
	MaxSuppress string `json:"maxSuppress,omitempty"`
}

// DNS is what a DNS probe asks and expects.
type DNS struct {
	// Name that is asked for.
	//
	// +optional
	Name string `json:"name,omitempty"`
	// Type of the question: A, AAAA, NS or SOA; A unless set.
	//
	// +optional
	Type string `json:"type,omitempty"`
	// RCode that the answer must have; NOERROR unless set.
	//
	// +optional
	RCode string `json:"rcode,omitempty"`
	// Answer that must be among the answers.
	//
	// +optional
	Answer string `json:"answer,omitempty"`
}

// NextHopProbe is a health check of every next hop.
type NextHopProbe struct {
	// Name in status and metrics; the type with "-nexthop" unless set.
	//
	// +optional
	Name string `json:"name,omitempty"`
	// Type is icmp, arp-nd or bfd.
	//
	// +required
	Type string `json:"type,omitempty"`
	// Interval from attempt to attempt, 10ms to 1h; 300ms unless set.
	//
	// +optional
	Interval string `json:"interval,omitempty"`
	// AttemptTimeout is how long an attempt may take; the interval unless set.
	//
	// +optional
	AttemptTimeout string `json:"attemptTimeout,omitempty"`
	// Rise: so many attempts in a row must succeed to be up; 3 unless set.
	//
	// +optional
	Rise *int64 `json:"rise,omitempty"`
	// Fall: so many attempts in a row must fail to be down; 2 unless set.
	//
	// +optional
	Fall *int64 `json:"fall,omitempty"`
	// HoldDown is how long what was down must be healthy before it is up again; 0s unless
	// set.
	//
	// +optional
	HoldDown string `json:"holdDown,omitempty"`
	// Damping keeps down what goes down again and again (RFC 2439).
	//
	// +optional
	Damping Damping `json:"damping,omitzero"`
}

// HTTP is what an HTTP probe sends and expects.
type HTTP struct {
	// Method is GET, HEAD or OPTIONS; GET unless set.
	//
	// +optional
	Method string `json:"method,omitempty"`
	// Host is the name that the request has in place of the address.
	//
	// +optional
	Host string `json:"host,omitempty"`
	// Headers of the request.
	//
	// +optional
	// +listType=atomic
	Headers []Header `json:"headers,omitempty"`
	// StatusMin is the lowest status that is a success; 200 unless set.
	//
	// +optional
	StatusMin *int64 `json:"statusMin,omitempty"`
	// StatusMax is the highest one; 399 unless set.
	//
	// +optional
	StatusMax *int64 `json:"statusMax,omitempty"`
	// Body is a text in the first 64 KiB of the answer.
	//
	// +optional
	Body string `json:"body,omitempty"`
	// TLSServerName is the name that the certificate must have.
	//
	// +optional
	TLSServerName string `json:"tlsServerName,omitempty"`
	// TLSInsecure takes any certificate.
	//
	// +optional
	TLSInsecure bool `json:"tlsInsecure,omitempty"`
	// CAFile is a file in the gateway's own file system.
	//
	// +optional
	CAFile string `json:"caFile,omitempty"`
}

// Header is a header of a request.
type Header struct {
	// Name of the header.
	//
	// +required
	Name string `json:"name,omitempty"`
	// Value of the header.
	//
	// +optional
	Value string `json:"value,omitempty"`
}
