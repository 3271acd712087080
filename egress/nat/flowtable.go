package nat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// Flowtable is a software flowtable: packets of the flows in it pass from one
// of its devices to another without the rest of the packet filter.
type Flowtable struct {
	// Devices are sorted. The kernel takes out those that are gone.
	Devices []string
	// Odd is what else somebody gave it: never ours.
	Odd string
}

func (f Flowtable) clone() Flowtable {
	f.Devices = slices.Clone(f.Devices)
	return f
}

func (f Flowtable) equal(other Flowtable) bool {
	return f.Odd == other.Odd && slices.Equal(f.Devices, other.Devices)
}

// parts are what stands between the braces of its declaration. Without the
// counter the kernel would not count in conntrack what passes.
func (f Flowtable) parts() []string {
	devices := make([]string, 0, len(f.Devices))
	for _, dev := range f.Devices {
		devices = append(devices, `"`+dev+`"`)
	}
	return []string{"hook ingress priority 0", "devices = { " + strings.Join(devices, ", ") + " }", "counter"}
}

func (f Flowtable) spec() string { return strings.Join(f.parts(), "; ") + ";" }

func (f Flowtable) write(b *strings.Builder, name string) {
	fmt.Fprintf(b, "\n\tflowtable %s {\n", name)
	for _, part := range f.parts() {
		fmt.Fprintf(b, "\t\t%s\n", part)
	}
	b.WriteString("\t}\n")
}

// flowtable reads one. Its counter cannot be seen in nft 1.0.6.
func (o jsonObject) flowtable() Flowtable {
	var f Flowtable
	var one string
	switch {
	case len(o.Dev) == 0 || json.Unmarshal(o.Dev, &f.Devices) == nil:
		slices.Sort(f.Devices)
	case json.Unmarshal(o.Dev, &one) == nil:
		f.Devices = []string{one}
	default:
		f.Odd = string(o.Dev)
	}
	if o.Hook != "ingress" || o.Prio != 0 {
		f.Odd += fmt.Sprintf(" hook %s priority %d", o.Hook, o.Prio)
	}
	return f
}

func (o Op) applyFlowtable(r *Ruleset) error {
	_, ok := r.Flowtables[o.Name]
	switch {
	case o.Verb == verbAdd && ok:
		return fmt.Errorf("flowtable is there already")
	case o.Verb == verbAdd:
		r.Flowtables[o.Name] = o.Flowtable.clone()
	case !ok:
		return fmt.Errorf("no such flowtable")
	case r.uses("@" + o.Name):
		return fmt.Errorf("flowtable is in use")
	default:
		delete(r.Flowtables, o.Name)
	}
	return nil
}

// fastPath puts established flows into the flowtable, if there is to be one.
//
// The kernel takes the route of the packet's own direction from the packet, and
// looks the other direction's up with the packet's mark; so the packet has the
// mark of replies for a moment. It is only done in the original direction: for
// the flow's forward way the kernel would look without ports, and perhaps find
// another next hop of a group than the flow has. The rule ends where a flow
// cannot be offloaded, hence the mark is put back by another one.
//
// What is offloaded passes the guards no more, and the packet that is looked at
// here has not passed the last one yet. So this looks for the same: that the port
// is of the network that the mark and the translated source are of. A flow whose
// route or rule changes leaves the flowtable, and comes by here again.
func (r *renderer) fastPath() {
	devices := slices.Compact(slices.Sorted(slices.Values(r.cfg.FlowDevices)))
	if len(devices) == 0 {
		return
	}
	for _, dev := range devices {
		_ = deviceKey(dev) // panics at what is no device's name
	}
	r.out.Flowtables[flowtableFast] = Flowtable{Devices: devices}
	ports := r.set(mapFastPorts, "ifname", "verdict", false)
	for _, n := range r.cfg.Networks {
		chain := objectName(prefixFast, n.Name)
		for _, port := range n.ports() {
			ports[deviceKey(port)] = "goto " + chain
		}
		marked := fmt.Sprintf("%s @%s ", ourMark, objectName(prefixGuardMarks, n.Name))
		r.chain(chain,
			marked+"ct reply ip daddr @"+objectName(prefixGuard4, n.Name)+" goto "+chainFastAdd,
			marked+"ct reply ip6 daddr @"+objectName(prefixGuard6, n.Name)+" goto "+chainFastAdd)
	}
	r.base(chainFast, "filter", "forward", priorityFast,
		fmt.Sprintf("ct state established ct direction original ct mark & %s != 0 meta l4proto { tcp, udp } oifname vmap @%s", mark(EgressMark), mapFastPorts))
	r.chain(chainFastAdd,
		setMark(r.cfg.ReturnMark),
		"flow add @"+flowtableFast,
		"meta mark set ct mark")
}

// flowtableProbe is a table that nft checks and does not load.
const flowtableProbe = `table inet egret_probe {
	flowtable probe {
		hook ingress priority 0
		devices = { "lo" }
		counter
	}
	chain probe {
		type filter hook forward priority 10; policy accept;
		flow add @probe
	}
}
`

// HasFlowtable says whether the kernel and nft have flowtables, without which
// Config.FlowDevices must be empty. It changes nothing, and may load modules.
func (t *Table) HasFlowtable(ctx context.Context) (bool, error) {
	_, err := t.run(ctx, false, flowtableProbe, "--check", "-f", "-")
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && !strings.Contains(err.Error(), "not permitted") {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for flowtables: %w", err)
	}
	return true, nil
}
