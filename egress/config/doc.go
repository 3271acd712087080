// Package config turns what a user wrote into an egress.Spec.
//
//	file --Read--> Raw --Parse--> egress.Spec
//
// Raw is the one schema: it mirrors the file, and other sources (Kubernetes
// objects) fill the same structs. Parse is the one validator. A user's mistakes
// are never returned one by one: every one is a Problem with the path of its
// field, and Error carries them all.
//
// Files are YAML (of which JSON is a part) or, with the extension .toml, TOML.
// Keys are matched without regard to case; an unknown key, a key given twice,
// a key without a value and an empty list entry are errors.
//
// Limits: a file has at most 64 MiB and four million values after its aliases
// are expanded; see also MaxNetworks.
package config
