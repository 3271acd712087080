package steer

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// setsPerGateway bounds the sets of one choice, in multiples of the gateways that can be
// used: one is there for each gateway in any case, the others come of what was.
const setsPerGateway = 4

// choice says which set of gateways each client of a bounded rule has, so that each
// gateway is in the sets of as many clients as any other. Clients keep what they have:
//
//   - One whose set is full, and whose gateways can all be used, keeps it.
//   - One that lost gateways keeps the others, and gets those with the fewest clients
//     for them. So does one that had fewer than the bound allows, when there are more.
//   - A new one gets those with the fewest clients. Among equals, those decide that come
//     next on a ring ordered by hash, from this node's turn on: a node with few clients
//     begins where others do not.
//
// For each gateway as anchor there is the set of it and those behind it on the ring: what
// evenly loaded gateways give to new clients. Others come of gateways that have gone and
// returned, or of uneven loads. When these become too many, those go that have the fewest
// clients, which is the one reason why a client moves without a loss.
type choice struct {
	ring []string // the gateways that can be used
	size int      // of a full set
	turn int      // where on the ring clients begin

	options []option
	byKey   map[string]int // what of options has these members
	load    []int          // clients by place on the ring
	of      []int          // by client: what of options it has
}

// option is a set of gateways.
type option struct {
	members []int // places on the ring, sorted
	anchor  int   // of a set on the ring; else -1
	users   int
}

// ringOf orders gateways by hash: every node has the same order.
func ringOf(usable []string) []string {
	hashes := make(map[string]uint64, len(usable))
	for _, id := range usable {
		hashes[id] = hash64("ring " + id)
	}
	return slices.SortedFunc(slices.Values(usable), func(a, b string) int {
		return cmp.Or(cmp.Compare(hashes[a], hashes[b]), strings.Compare(a, b))
	})
}

// choose makes the choice among usable gateways, of which there is at least one. had
// are sets that clients have had, and now says for each client which of them, or -1.
func choose(usable []string, bound, turn int, had [][]string, now []int) *choice {
	c := &choice{ring: ringOf(usable), byKey: map[string]int{}, of: make([]int, len(now))}
	n := len(c.ring)
	c.size, c.load = min(max(bound, 1), n), make([]int, n)
	c.turn = ((turn % n) + n) % n
	for anchor := range n {
		c.option(c.window(anchor), anchor)
	}
	rest := make([][]int, len(had)) // what of them can be used
	full := make([]int, len(had))   // what of options they are, if so
	place := make(map[string]int, n)
	for i, id := range c.ring {
		place[id] = i
	}
	for i, members := range had {
		for _, id := range members {
			if p, ok := place[id]; ok {
				rest[i] = append(rest[i], p)
			}
		}
		slices.Sort(rest[i])
		full[i] = -1
		if len(rest[i]) == c.size && len(members) == c.size {
			full[i] = c.option(rest[i], -1)
		}
	}
	c.keep(now, full)
	var fresh []int
	for client, was := range now {
		switch {
		case c.of[client] >= 0:
		case was >= 0 && len(rest[was]) > 0:
			c.take(client, c.find(rest[was]))
		default:
			fresh = append(fresh, client)
		}
	}
	for _, client := range fresh {
		c.take(client, c.find(nil))
	}
	return c
}

// keep gives the clients of full sets what they have, but for those of too many sets.
func (c *choice) keep(now, full []int) {
	for _, was := range now {
		if was >= 0 && full[was] >= 0 {
			c.options[full[was]].users++
		}
	}
	var others []int
	for i, o := range c.options {
		if o.anchor < 0 && o.users > 0 {
			others = append(others, i)
		}
	}
	slices.SortFunc(others, func(a, b int) int {
		return cmp.Or(cmp.Compare(c.options[b].users, c.options[a].users), slices.Compare(c.options[a].members, c.options[b].members))
	})
	dropped := map[int]bool{}
	for _, i := range others[min(len(others), c.room()):] {
		dropped[i] = true
	}
	for i := range c.options {
		c.options[i].users = 0
	}
	for client, was := range now {
		c.of[client] = -1
		if was >= 0 && full[was] >= 0 && !dropped[full[was]] {
			c.take(client, full[was])
		}
	}
	// What nobody has is no option, or history would come back.
	kept := c.options[:0:0]
	moved := make([]int, len(c.options))
	clear(c.byKey)
	for i, o := range c.options {
		if moved[i] = len(kept); o.anchor >= 0 || o.users > 0 {
			c.byKey[keyOf(o.members)] = len(kept)
			kept = append(kept, o)
		}
	}
	c.options = kept
	for client, i := range c.of {
		if i >= 0 {
			c.of[client] = moved[i]
		}
	}
}

// room is how many sets there may be that are not on the ring.
func (c *choice) room() int { return (setsPerGateway - 1) * len(c.ring) }

func (c *choice) take(client, option int) {
	c.of[client] = option
	c.options[option].users++
	for _, p := range c.options[option].members {
		c.load[p]++
	}
}

// window is the anchor and those behind it on the ring.
func (c *choice) window(anchor int) []int {
	out := make([]int, 0, c.size)
	for j := range c.size {
		out = append(out, (anchor+j)%len(c.ring))
	}
	slices.Sort(out)
	return out
}

// option finds or makes the one of these members.
func (c *choice) option(members []int, anchor int) int {
	key := keyOf(members)
	if i, known := c.byKey[key]; known {
		return i
	}
	c.byKey[key] = len(c.options)
	c.options = append(c.options, option{members: members, anchor: anchor})
	return len(c.options) - 1
}

func keyOf(members []int) string {
	key := make([]byte, 0, 2*len(members))
	for _, p := range members {
		key = binary.BigEndian.AppendUint16(key, uint16(p))
	}
	return string(key)
}

// find is the best option for a client that keeps some gateways. A new one is made if
// none there is keeps as many, or comes near the load of the best.
func (c *choice) find(keep []int) int {
	ideal := c.ideal(keep)
	if i, known := c.byKey[keyOf(ideal)]; known {
		return i
	}
	best := 0
	for i := range c.options {
		if i > 0 && c.better(&c.options[i], &c.options[best], keep) {
			best = i
		}
	}
	near := c.loadOf(c.options[best].members)-c.loadOf(ideal) <= c.size
	if near && common(c.options[best].members, keep) == min(len(keep), c.size) || len(c.options)-len(c.ring) >= c.room() {
		return best
	}
	return c.option(ideal, -1)
}

// ideal are the gateways to keep, filled up with those of the fewest clients.
func (c *choice) ideal(keep []int) []int {
	order := make([]int, 0, len(c.ring))
	for i := range c.ring {
		if p := (c.turn + i) % len(c.ring); !slices.Contains(keep, p) {
			order = append(order, p)
		}
	}
	byLoad := func(a, b int) int { return cmp.Compare(c.load[a], c.load[b]) }
	slices.SortStableFunc(order, byLoad)
	out := slices.Clone(keep)
	if len(out) > c.size { // the bound has become less
		slices.SortStableFunc(out, byLoad)
		out = out[:c.size]
	}
	out = append(out, order[:c.size-len(out)]...)
	slices.Sort(out)
	return out
}

// better says whether a is better than b for a client that keeps some gateways: with
// more of them, else with fewer clients, else nearer behind this node's turn.
func (c *choice) better(a, b *option, keep []int) bool {
	n := len(c.ring)
	distance := func(o *option) int {
		if o.anchor < 0 {
			return n
		}
		return (o.anchor - c.turn + n) % n
	}
	return cmp.Or(
		-cmp.Compare(common(a.members, keep), common(b.members, keep)),
		cmp.Compare(c.loadOf(a.members), c.loadOf(b.members)),
		cmp.Compare(distance(a), distance(b)),
		slices.Compare(a.members, b.members)) < 0
}

func (c *choice) loadOf(members []int) int {
	sum := 0
	for _, p := range members {
		sum += c.load[p]
	}
	return sum
}

func common(a, b []int) int {
	n := 0
	for _, p := range a {
		if slices.Contains(b, p) {
			n++
		}
	}
	return n
}

// members are the IDs of an option, sorted.
func (c *choice) members(i int) []string {
	out := make([]string, 0, c.size)
	for _, p := range c.options[i].members {
		out = append(out, c.ring[p])
	}
	slices.Sort(out)
	return out
}
