package cluster

import (
	"slices"
	"strings"
)

// maxMemo bounds what a Memo takes over from one call to the next: sets of labels.
const maxMemo = 1 << 16

// Memo keeps, between calls, which policy selects which labels: pods come and
// go, their labels are few. It forgets everything when a policy that selects
// changes. The zero Memo is ready; without one nothing is kept between calls. It
// is not for several goroutines at a time.
type Memo struct {
	policies []Policy
	// selected is by namespace, with its labels, and by the labels of pods; size is
	// how many there are.
	selected map[string]map[string]string
	size     int
}

// forPolicies forgets what other policies were the reason of, or all if it is too
// much.
func (m *Memo) forPolicies(policies []*Policy) {
	same := slices.EqualFunc(m.policies, policies, func(a Policy, b *Policy) bool {
		return a.Name == b.Name && slices.Equal(a.Selectors, b.Selectors)
	})
	if same && m.selected != nil && m.size <= maxMemo {
		return
	}
	m.policies, m.selected, m.size = make([]Policy, 0, len(policies)), map[string]map[string]string{}, 0
	for _, p := range policies {
		m.policies = append(m.policies, Policy{Name: p.Name, Selectors: slices.Clone(p.Selectors)})
	}
}

// namespace is what is remembered of a namespace.
func (m *Memo) namespace(key string) map[string]string {
	selected := m.selected[key]
	if selected == nil {
		selected = map[string]string{}
		m.selected[key] = selected
		m.size++
	}
	return selected
}

// put remembers for the next call, too.
func (m *Memo) put(selected map[string]string, key, name string) {
	m.size++
	selected[key] = name
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
