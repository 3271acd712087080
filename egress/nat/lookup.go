package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Decision is what becomes of the first packet of a client's flow.
type Decision string

// The decisions of classification.
const (
	Normal    Decision = "normal"    // routed normally, untranslated by us
	Exits     Decision = "exit"      // by Trace.Exit
	Dropped   Decision = "drop"      // by a rule, for want of an exit, or by one that takes no new flows
	Rejected  Decision = "reject"    // by a rule, or by an exit that takes no new flows
	Unmatched Decision = "unmatched" // dropped, since no policy has the client
)

// Trace is the way of the first packet of a client's flow through a Ruleset.
type Trace struct {
	Decision Decision
	// Policy, Spread and Exit are the names of the objects the packet went
	// through, as nftables has them: a name that nft cannot spell is altered.
	Policy, Spread, Exit string
	// Mark is our part of the packet mark behind classification, 0 if Decision is
	// Normal. Zone is the conntrack zone of the replies.
	Mark uint32
	Zone uint16
	// Address is what the client is translated to. It is invalid if the flow is
	// not, if its pool has no address of the family (then it is dropped), or if
	// the pool's address is chosen per flow.
	Address netip.Addr
	// Steps are the rules that matched and what they led to.
	Steps []string
}

// WithTexts gives the rules their texts, from the rules of want with the same
// IDs, as a Ruleset from Snapshot has none.
func (r Ruleset) WithTexts(want Ruleset) Ruleset {
	texts := map[string]string{}
	for _, c := range want.Chains {
		for _, l := range c.Lines {
			texts[l.ID] = l.Text
		}
	}
	out := r.fork()
	out.Exists = r.Exists
	for name, c := range r.Chains {
		lines := make([]Line, 0, len(c.Lines))
		for _, l := range c.Lines {
			if l.Text == "" {
				l.Text = texts[l.ID]
			}
			lines = append(lines, l)
		}
		c.Lines = lines
		out.Chains[name] = c
	}
	return out
}

// Classify follows the first packet of a flow that comes from a client by a
// client interface: the chain for clients, and what translates it. It takes the
// destination for an address of neither this node nor a multicast group ("fib"
// rules are for the kernel to know). A rule that it cannot read, because
// somebody changed the table or WithTexts did not know it, is an error; the
// trace goes as far as that.
func (r Ruleset) Classify(src, dst netip.Addr) (Trace, error) {
	src, dst = src.WithZone(""), dst.WithZone("")
	if !src.IsValid() || src.Is4() != dst.Is4() {
		return Trace{}, fmt.Errorf("classify %s to %s: not two addresses of one family", src, dst)
	}
	w := walker{rules: r, src: src, dst: dst}
	_, err := w.chain(chainClients, 0)
	if err == nil {
		err = w.decide()
	}
	if err != nil {
		return w.Trace, fmt.Errorf("classify %s to %s: %w", src, dst, err)
	}
	return w.Trace, nil
}

// walker is a packet on its way.
type walker struct {
	Trace
	rules    Ruleset
	src, dst netip.Addr
	mark     uint32
}

// maxDepth bounds the chains within each other. The kernel's is 16.
const maxDepth = 16

// chain goes through a chain. The packet ends there (true) or comes back.
func (w *walker) chain(name string, depth int) (bool, error) {
	c, ok := w.rules.Chains[name]
	if !ok || depth > maxDepth {
		return false, fmt.Errorf("no way through chain %q", name)
	}
	w.pass(name)
	for _, line := range c.Lines {
		verdict, err := w.rule(line.Text)
		if err != nil {
			return false, fmt.Errorf("chain %q: rule %q (%s): %w", name, line.Text, line.ID, err)
		}
		if verdict == "" {
			continue
		}
		w.Steps = append(w.Steps, name+": "+line.Text+" -> "+verdict)
		word, to, _ := strings.Cut(verdict, " ")
		switch word {
		case "return":
			return false, nil
		case "goto":
			return w.chain(to, depth+1)
		case "jump":
			if ended, err := w.chain(to, depth+1); ended || err != nil {
				return ended, err
			}
		case "snat":
			return true, nil
		case "drop":
			return true, nil
		default:
			return false, fmt.Errorf("chain %q: verdict %q", name, verdict)
		}
	}
	return false, nil
}

// pass notes the objects that chains stand for.
func (w *walker) pass(chain string) {
	for prefix, name := range map[string]*string{prefixPolicy: &w.Policy, prefixSpread: &w.Spread, prefixExit: &w.Exit} {
		if rest, ok := strings.CutPrefix(chain, prefix); ok {
			*name = rest
		}
	}
}

var errUnread = errors.New("cannot be read")

// rule evaluates a rule: its verdict, or "" if it does not match or goes on.
func (w *walker) rule(text string) (string, error) {
	words := strings.Fields(text)
	if len(words) < 2 {
		return "", errUnread
	}
	switch {
	case words[0] == "fib", strings.HasPrefix(text, tcpNotFirst), strings.HasPrefix(text, withoutBeginning), words[0] == "icmp", words[0] == "icmpv6":
		return "", nil // not of the first packet of a flow to somewhere else
	case strings.HasPrefix(text, "ct mark set "):
		return "", nil
	case strings.HasPrefix(text, "ct reply zone set "):
		zone, err := strconv.ParseUint(words[4], 10, 16)
		w.Zone = uint16(zone)
		return "", err
	case strings.HasPrefix(text, "meta mark set meta mark & "):
		return "", w.setMark(words[6:])
	case words[0] == "goto":
		return text, nil
	case words[0] == "counter":
		return words[len(words)-1], nil
	case words[0] == "snat":
		return w.snat(words)
	case strings.HasPrefix(text, withPorts):
		return w.rule(strings.TrimPrefix(text, withPorts))
	}
	return w.match(words)
}

// setMark carries out "A" or "A | B": the bits to keep, and those to set.
func (w *walker) setMark(words []string) error {
	keep, err := strconv.ParseUint(words[0], 0, 32)
	if err != nil {
		return errUnread
	}
	w.mark &= uint32(keep)
	if len(words) == 3 && words[1] == "|" {
		add, err := strconv.ParseUint(words[2], 0, 32)
		w.mark |= uint32(add)
		return err
	}
	return nil
}

// match looks the packet up in a set or a map: "KEY @set VERDICT" or "KEY vmap
// @map".
func (w *walker) match(words []string) (string, error) {
	last, before := words[len(words)-1], words[len(words)-2]
	set, isMap := strings.CutPrefix(last, "@")
	key := words[:len(words)-2]
	if isMap && before != "vmap" {
		return "", errUnread
	}
	if !isMap {
		if set, isMap = strings.CutPrefix(before, "@"); !isMap {
			return "", errUnread
		}
	}
	value, found, err := w.find(set, key)
	if err != nil || !found {
		return "", err
	}
	if before != "vmap" {
		return last, nil
	}
	return value, nil
}

// find looks a key expression of the packet up.
func (w *walker) find(name string, key []string) (value string, found bool, err error) {
	s, ok := w.rules.Sets[name]
	if !ok {
		return "", false, fmt.Errorf("no set %q", name)
	}
	switch expr := strings.Join(key, " "); {
	case expr == "ip saddr", expr == "ip6 saddr", expr == "ip daddr", expr == "ip6 daddr":
		if (key[0] == "ip") != w.src.Is4() {
			return "", false, nil
		}
		if key[1] == "saddr" {
			return s.findAddr(w.src)
		}
		return s.findAddr(w.dst)
	case strings.HasPrefix(expr, "meta mark & "):
		mask, err := strconv.ParseUint(key[3], 0, 32)
		value, found = s.Elements[mark(w.mark&uint32(mask))]
		return value, found, err
	case key[0] == "jhash":
		return w.findBucket(s, key)
	}
	return "", false, errUnread
}

// findBucket evaluates "jhash ip saddr mod N seed S".
func (w *walker) findBucket(s Set, key []string) (string, bool, error) {
	if len(key) != 7 || key[2] != "saddr" {
		return "", false, errUnread
	}
	if (key[1] == "ip") != w.src.Is4() {
		return "", false, nil
	}
	n, err := strconv.ParseUint(key[4], 10, 31)
	seed, err2 := strconv.ParseUint(key[6], 0, 32)
	if err = errors.Join(err, err2); err != nil || n == 0 {
		return "", false, errUnread
	}
	i := bucket(w.src, int(n), uint32(seed))
	w.Steps = append(w.Steps, fmt.Sprintf("%s is in bucket %d of %d", w.src, i, n))
	value, found := s.Elements[strconv.Itoa(i)]
	return value, found, nil
}

func (s Set) findAddr(a netip.Addr) (string, bool, error) {
	if value, ok := s.Elements[addrText(a)]; ok {
		return value, true, nil
	}
	for key, value := range s.Elements {
		if sp, err := parseSpan(key); err == nil && sp.lo.Compare(a) <= 0 && a.Compare(sp.hi) <= 0 {
			return value, true, nil
		}
	}
	return "", false, nil
}

// decide says what the mark means that classification left, and follows the
// packet into translation.
func (w *walker) decide() error {
	w.Mark = w.mark & MarkMask
	switch {
	case w.Mark == 0:
		w.Decision, w.Exit, w.Zone = Normal, "", 0
		return nil
	case w.Mark == markDrop, w.Mark == markRefuseDrop:
		w.Decision = Dropped
		return nil
	case w.Mark == markReject, w.Mark == markRefuseReject:
		w.Decision = Rejected
		return nil
	case w.Mark == markUnmatched:
		w.Decision = Unmatched
		return nil
	}
	w.Decision = Exits
	_, err := w.chain(chainTransUp, 0)
	return err
}

// snat evaluates "snat FAMILY to ADDRESS" or "snat FAMILY to jhash ... map
// @map".
func (w *walker) snat(words []string) (string, error) {
	if len(words) < 4 {
		return "", errUnread
	}
	if (words[1] == "ip") != w.src.Is4() {
		return "", nil
	}
	text := words[3]
	if text == "jhash" {
		n := len(words)
		if strings.Contains(strings.Join(words, " "), "daddr") {
			return "snat per flow", nil
		}
		var found bool
		var err error
		if text, found, err = w.find(strings.TrimPrefix(words[n-1], "@"), words[3:n-2]); err != nil || !found {
			return "", err
		}
	}
	a, err := netip.ParseAddr(text)
	w.Address = a
	return "snat " + text, err
}

// Lookup asks the kernel for the element of one of our sets that has the key, an
// address for intervals. The value is "" for an element of a set that is no map.
// That the element is missing is no error; that the set is, is one.
func (t *Table) Lookup(ctx context.Context, set, key string) (value string, found bool, err error) {
	out, err := t.run(ctx, false, "", "get", "element", family, t.name, set, "{ "+key+" }")
	if err != nil && strings.Contains(err.Error(), "Could not process rule: No such file or directory") {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look up %q: %w", key, err)
	}
	value, err = parseElement(string(out))
	if err != nil {
		return "", false, fmt.Errorf("look up %q: %w", key, err)
	}
	return value, true, nil
}

// parseElement reads the value of the element that "nft get element" prints. It
// is text: nft 1.0.6 knows no JSON there. It is also the element's first address
// instead of the interval.
func parseElement(text string) (string, error) {
	_, rest, ok := strings.Cut(text, "elements = {")
	element, _, ok2 := strings.Cut(rest, "}")
	if !ok || !ok2 {
		return "", fmt.Errorf("read element: none in %q", text)
	}
	_, value, _ := strings.Cut(element, " : ")
	return strings.TrimSpace(value), nil
}
