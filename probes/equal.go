package probes

import "slices"

// equal reports whether a and b are the same probe in every respect.
func equal(a, b Config) bool {
	return sameQuestion(a, b) && a.Name == b.Name && a.Network == b.Network && a.Require == b.Require &&
		a.Interval == b.Interval && a.AttemptTimeout == b.AttemptTimeout && a.Rise == b.Rise && a.Fall == b.Fall &&
		a.HoldDown == b.HoldDown && same(a.Damping, b.Damping) && slices.Equal(a.Targets, b.Targets)
}

// sameQuestion reports whether an attempt at the same target would do the same
// for a and b, so that a verdict found for one holds for the other.
func sameQuestion(a, b Config) bool {
	return a.Type == b.Type && a.Device == b.Device && a.Source == b.Source && a.http().equal(b.http()) && a.dns() == b.dns()
}

// same compares what a and b point to.
func same[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func (h HTTPConfig) equal(o HTTPConfig) bool {
	return h.Method == o.Method && h.Host == o.Host && slices.Equal(h.Headers, o.Headers) && h.StatusMin == o.StatusMin &&
		h.StatusMax == o.StatusMax && h.Body == o.Body && h.TLSServerName == o.TLSServerName && h.TLSInsecure == o.TLSInsecure &&
		h.CAFile == o.CAFile
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

// dns is what a DNS probe asks and expects, with its defaults.
func (c Config) dns() DNSConfig {
	var d DNSConfig
	if c.DNS != nil {
		d = *c.DNS
	}
	if d.Type == "" {
		d.Type = "A"
	}
	if d.RCode == "" {
		d.RCode = "NOERROR"
	}
	return d
}

// clone shares nothing with c.
func clone(c Config) Config {
	c.Targets = slices.Clone(c.Targets)
	if c.Damping != nil {
		d := *c.Damping
		c.Damping = &d
	}
	if c.HTTP != nil {
		h := *c.HTTP
		h.Headers = slices.Clone(h.Headers)
		c.HTTP = &h
	}
	if c.DNS != nil {
		d := *c.DNS
		c.DNS = &d
	}
	return c
}
