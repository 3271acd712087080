package cluster

import (
	"slices"
	"strings"

	"github.com/egret-router/egret/egress/config"
)

// part is what an object adds to a configuration.
type part struct {
	of *reporter
	// add adds it, without changing what raw shares with others.
	add func(raw *config.Raw)
	// field is where in the object a field of the configuration comes from.
	field func(string) string
}

// admit adds the parts that the validator accepts, in their order: where two do
// not go together, the first stays. All are sound in most cases, which costs one
// call of the validator; each that is not costs a few more.
func (p *gatewayPlanner) admit(raw config.Raw, parts []part) config.Raw {
	with := together(raw, parts)
	_, problems := config.Parse(with)
	switch {
	case len(problems) == 0 || len(parts) == 0:
		return with
	case len(parts) > 1:
		half := len(parts) / 2
		return p.admit(p.admit(raw, parts[:half]), parts[half:])
	}
	for _, problem := range problems {
		parts[0].of.add(ReasonInvalid, parts[0].field(problem.Field), "%s", problem.Message)
	}
	p.problems = append(p.problems, parts[0].of.problems...)
	return raw
}

func together(raw config.Raw, parts []part) config.Raw {
	raw.Networks, raw.Pools = slices.Clip(raw.Networks), slices.Clip(raw.Pools)
	raw.Policies, raw.Bindings = slices.Clip(raw.Policies), slices.Clip(raw.Bindings)
	for _, part := range parts {
		part.add(&raw)
	}
	return raw
}

// trimIndex takes list[i] from the beginning of a field, so that the rest is that
// of list[0].
func trimIndex(field, list string) string {
	if rest, ok := strings.CutPrefix(field, list+"["); ok {
		if _, rest, ok = strings.Cut(rest, "]."); ok {
			return list + "[0]." + rest
		}
	}
	return field
}
