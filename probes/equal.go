package probes

import "slices"

// equal reports whether a and b are the same probe in every respect.
func equal(a, b Config) bool {
	return sameQuestion(a, b) && a.Name == b.Name && a.Network == b.Network && a.Require == b.Require &&
		a.Interval == b.Interval && a.AttemptTimeout == b.AttemptTimeout && a.Rise == b.Rise && a.Fall == b.Fall &&
		slices.Equal(a.Targets, b.Targets)
}

// sameQuestion reports whether an attempt at the same target would do the same
// for a and b, so that a verdict found for one holds for the other.
func sameQuestion(a, b Config) bool {
	return a.Type == b.Type && a.Device == b.Device && a.Source == b.Source && a.http() == b.http()
}

// http is what an HTTP probe sends and expects, with its defaults.
func (c Config) http() HTTPConfig {
	var h HTTPConfig
	if c.HTTP != nil {
		h = *c.HTTP
	}
	if h.Method == "" {
		h.Method = "GET"
	}
	if h.StatusMin == 0 {
		h.StatusMin = 200
	}
	if h.StatusMax == 0 {
		h.StatusMax = 399
	}
	return h
}

// clone shares nothing with c.
func clone(c Config) Config {
	c.Targets = slices.Clone(c.Targets)
	if c.HTTP != nil {
		h := *c.HTTP
		c.HTTP = &h
	}
	return c
}
