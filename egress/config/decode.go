package config

import (
	"github.com/go-viper/mapstructure/v2"

	"github.com/egret-router/egret/egress"
)

// Decode reads one part of a configuration that is not in a file: a network, say,
// as JSON or YAML. It is as strict as Read about keys and types, and fills the same
// structures; Parse then validates them. With problems the result is not to be
// used. Fields are those of the part, as in bgp.peers[0].asn.
func Decode[T any](data []byte) (T, []egress.Problem) {
	var part T
	root, unreadable := parseTree("yaml", data)
	if root == nil {
		r := report{unreadable}
		return part, r.problems()
	}
	findings, _ := shapeOf[T](root)
	if len(findings) > 0 {
		r := report{findings}
		return part, r.problems()
	}
	var settings map[string]any
	err := root.Decode(&settings)
	if err == nil {
		var decoder *mapstructure.Decoder
		decoder, err = mapstructure.NewDecoder(&mapstructure.DecoderConfig{Result: &part, ErrorUnused: true, DecodeHook: expandShorthand})
		if err == nil {
			err = decoder.Decode(settings)
		}
	}
	if err != nil {
		r := report{syntaxFindings(err)}
		return part, r.problems()
	}
	return part, nil
}
