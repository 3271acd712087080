package cluster

import (
	"slices"
	"strings"
)

// maxMemo bounds what a Memo remembers: sets of labels.
const maxMemo = 1 << 16

// Memo keeps, between calls, which policy selects which labels: pods come and
// go, their labels are few. It forgets everything when a policy that selects
// changes. The zero Memo is ready; without one nothing is kept between calls. It
// is not for several goroutines at a time.
type Memo struct {
	policies []Policy
	selected map[string]string
}

// forPolicies forgets what other policies were the reason of.
func (m *Memo) forPolicies(policies []*Policy) {
	same := slices.EqualFunc(m.policies, policies, func(a Policy, b *Policy) bool {
		return a.Name == b.Name && slices.Equal(a.Selectors, b.Selectors)
	})
	if same && m.selected != nil {
		return
	}
	m.policies, m.selected = make([]Policy, 0, len(policies)), map[string]string{}
	for _, p := range policies {
		m.policies = append(m.policies, Policy{Name: p.Name, Selectors: slices.Clone(p.Selectors)})
	}
}

func (m *Memo) get(key string) (string, bool) {
	name, known := m.selected[key]
	return name, known
}

func (m *Memo) put(key, name string) {
	if len(m.selected) >= maxMemo {
		clear(m.selected)
	}
	m.selected[key] = name
}

// labelKey is the same for equal labels only.
func labelKey(labels map[string]string) string {
	keys, size := make([]string, 0, 16), 0
	for k, v := range labels {
		keys = append(keys, k)
		size += len(k) + len(v) + 2
	}
	slices.Sort(keys)
	var b strings.Builder
	b.Grow(size)
	for _, k := range keys {
		b.WriteString(k)
		b.WriteByte(1) // no label has it
		b.WriteString(labels[k])
		b.WriteByte(2)
	}
	return b.String()
}
