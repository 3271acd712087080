package v1alpha1

import "k8s.io/apimachinery/pkg/util/intstr"

// Probe is a health check of a network.
type Probe struct {
	// +optional
	Name string `json:"name,omitempty"`
	// +required
	Type string `json:"type,omitempty"`
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	Targets []Target `json:"targets,omitempty"`
	// +optional
	Interval string `json:"interval,omitempty"`
	// +optional
	AttemptTimeout string `json:"attemptTimeout,omitempty"`
	// +optional
	Rise *int64 `json:"rise,omitempty"`
	// +optional
	Fall *int64 `json:"fall,omitempty"`
	// +optional
	HoldDown string `json:"holdDown,omitempty"`
	// +optional
	Damping Damping `json:"damping,omitzero"`
	// Require is any, all or a number of targets.
	//
	// +optional
	Require *intstr.IntOrString `json:"require,omitempty"`
	// +optional
	Source string `json:"source,omitempty"`
	// +optional
	Interface string `json:"interface,omitempty"`
	// +optional
	HTTP *HTTP `json:"http,omitempty"`
	// +optional
	DNS *DNS `json:"dns,omitempty"`
}

// Target is what a probe asks.
type Target struct {
	// +required
	Target string `json:"target,omitempty"`
	// +optional
	Source string `json:"source,omitempty"`
}

// Damping is the suppression of targets that flap.
type Damping struct {
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
	// +optional
	Penalty *int64 `json:"penalty,omitempty"`
	// +optional
	Suppress *int64 `json:"suppress,omitempty"`
	// +optional
	Reuse *int64 `json:"reuse,omitempty"`
	// +optional
	HalfLife string `json:"halfLife,omitempty"`
	// +optional
	MaxSuppress string `json:"maxSuppress,omitempty"`
}

// DNS is what a DNS probe asks and expects.
type DNS struct {
	// +optional
	Name string `json:"name,omitempty"`
	// +optional
	Type string `json:"type,omitempty"`
	// +optional
	RCode string `json:"rcode,omitempty"`
	// +optional
	Answer string `json:"answer,omitempty"`
}

// NextHopProbe is a health check of every next hop.
type NextHopProbe struct {
	// +optional
	Name string `json:"name,omitempty"`
	// +required
	Type string `json:"type,omitempty"`
	// +optional
	Interval string `json:"interval,omitempty"`
	// +optional
	AttemptTimeout string `json:"attemptTimeout,omitempty"`
	// +optional
	Rise *int64 `json:"rise,omitempty"`
	// +optional
	Fall *int64 `json:"fall,omitempty"`
	// +optional
	HoldDown string `json:"holdDown,omitempty"`
	// +optional
	Damping Damping `json:"damping,omitzero"`
}

// HTTP is what an HTTP probe sends and expects.
type HTTP struct {
	// +optional
	Method string `json:"method,omitempty"`
	// +optional
	Host string `json:"host,omitempty"`
	// +optional
	// +listType=atomic
	Headers []Header `json:"headers,omitempty"`
	// +optional
	StatusMin *int64 `json:"statusMin,omitempty"`
	// +optional
	StatusMax *int64 `json:"statusMax,omitempty"`
	// +optional
	Body string `json:"body,omitempty"`
	// +optional
	TLSServerName string `json:"tlsServerName,omitempty"`
	// +optional
	TLSInsecure bool `json:"tlsInsecure,omitempty"`
	// CAFile is a file in the gateway's own file system.
	//
	// +optional
	CAFile string `json:"caFile,omitempty"`
}

// Header is a header of a request.
type Header struct {
	// +required
	Name string `json:"name,omitempty"`
	// +optional
	Value string `json:"value,omitempty"`
}
