// Package egress is the model and the loop of Egret.
//
// Vocabulary, used everywhere in the project:
//
//	Spec      what the user asked for; immutable once parsed
//	State     what was observed: links, learned routes, verdicts, what the kernel had
//	Desired   what should exist, Resolve(Spec, State)
//	Snapshot  what the kernel has
//	Plan      ordered operations that turn a Snapshot into a Desired
//	Report    what one round of the loop did
//	Status    what the user is told, per object: phase, since, reason
//	Problem   a user's mistake: field path and message
//	Verdict   a probe's judgement
//
// Resolve is pure: it runs without root on any machine. Router.Run is the one
// loop that owns mutable state; kernel, BGP and probes sit behind the small
// interfaces in ports.go.
package egress
