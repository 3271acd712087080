package config

import (
	_ "embed"
	"slices"
)

//go:embed reference.yaml
var reference []byte

// Reference is a commented configuration with every field: what it means, its
// unit, its default. It is valid as it stands.
func Reference() []byte { return slices.Clone(reference) }
