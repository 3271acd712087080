package egress

import (
	"time"

	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
)

// BFDStatus is what BFD tells about a session (RFC 5880).
type BFDStatus struct {
	// State is admin-down, down, init or up; PeerState what the peer said last.
	State     string `json:"state"`
	PeerState string `json:"peerState"`
	// Diagnostic is why the session is not up, PeerDiagnostic the peer's reason.
	Diagnostic     string `json:"diagnostic"`
	PeerDiagnostic string `json:"peerDiagnostic"`
	// TxInterval is between our packets, RxInterval between the peer's. After
	// DetectTime without one the session is down. 0 before the peer was heard.
	TxInterval time.Duration `json:"txIntervalNanoseconds"`
	RxInterval time.Duration `json:"rxIntervalNanoseconds"`
	DetectTime time.Duration `json:"detectTimeNanoseconds"`
	// Ups and Downs count how often the session came up and left that state.
	Ups   uint64 `json:"ups"`
	Downs uint64 `json:"downs"`
	// In and Out count packets, Refused those that were not valid.
	In      uint64 `json:"packetsIn"`
	Out     uint64 `json:"packetsOut"`
	Refused uint64 `json:"packetsRefused"`
	// Stale means that the process which runs the session does not answer.
	Stale bool `json:"stale,omitempty"`
}

// probeStatuses are the probes wanted, by network, in the order of Desired.
func (r *Router) probeStatuses(want *Desired) map[string][]ProbeStatus {
	states := map[string]probes.State{}
	for _, p := range r.edges.Prober.State() {
		states[p.Name] = p
	}
	out := map[string][]ProbeStatus{}
	for _, p := range want.Probes {
		out[p.Network] = append(out[p.Network], probeStatus(p.Name, states[p.Name]))
	}
	sessions := map[string]bfd.State{}
	list := r.edges.BFD.State()
	for _, st := range list {
		sessions[st.Name] = st
	}
	// Judging what this round made begins its time of grace.
	verdicts := r.sessions.verdicts(list, time.Now())
	for _, c := range want.BFD {
		out[c.Device] = append(out[c.Device], sessionStatus(c, sessions[c.Name], verdicts[c.Name]))
	}
	return out
}

func probeStatus(name string, p probes.State) ProbeStatus {
	out := ProbeStatus{Name: name, Verdict: p.Verdict.String(), Since: p.Since, PacketsPerSecond: p.PacketsPerSecond}
	for _, t := range p.Targets {
		out.Targets = append(out.Targets, ProbeTargetStatus{Target: t.Target, Verdict: t.Verdict.String(),
			LastRTT: t.LastRTT, LastError: t.LastError, Attempts: t.Attempts, Failures: t.Failures, Suppressed: t.Suppressed, HeldUntil: t.HeldUntil})
	}
	return out
}

func sessionStatus(c bfd.Config, st bfd.State, v probes.Verdict) ProbeStatus {
	b := &BFDStatus{State: st.Status.String(), PeerState: st.RemoteStatus.String(), Diagnostic: st.Diag.String(), PeerDiagnostic: st.RemoteDiag.String(),
		TxInterval: st.TxInterval, RxInterval: st.RxInterval, DetectTime: st.DetectTime,
		Ups: st.Ups, Downs: st.Downs, In: st.In, Out: st.Out, Refused: st.Refused, Stale: st.Stale}
	target := ProbeTargetStatus{Target: c.Peer.String(), Verdict: v.String(), LastError: st.LastError}
	switch {
	case st.Stale:
		target.LastError = "the process that runs the session does not answer"
	case st.Status != bfd.Up && st.RemoteStatus == bfd.AdminDown && target.LastError == "":
		target.LastError = "administratively down at the peer"
	case st.Status != bfd.Up && st.Diag != bfd.NoDiag && target.LastError == "":
		target.LastError = st.Diag.String()
	case st.Status != bfd.Up && st.In == 0 && target.LastError == "":
		target.LastError = "no packet from the peer yet"
	}
	return ProbeStatus{Name: c.Name, Verdict: v.String(), Since: st.Since, Targets: []ProbeTargetStatus{target}, BFD: b}
}
