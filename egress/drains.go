package egress

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/egret-router/egret/egress/drain"
)

// Why a drain is not begun or not ended.
var (
	ErrNoSuchNetwork = errors.New("no such network")
	ErrNotDrained    = errors.New("not drained")
	// ErrWholeGateway: one network cannot be let out of the gateway's drain.
	ErrWholeGateway = errors.New("the whole gateway is drained")
)

// DrainRequest asks for a drain: of Network, or of all there are and will be if
// it is "". Delay and Deadline are as configured if they are nil.
type DrainRequest struct {
	Network  string         `json:"network,omitempty"`
	Delay    *time.Duration `json:"delayNanoseconds,omitempty"`
	Deadline *time.Duration `json:"deadlineNanoseconds,omitempty"`
	Cut      bool           `json:"cut,omitempty"`
}

// order fills in what the request leaves open.
func (q DrainRequest) order(s Settings) (drain.Order, error) {
	o := s.Drain
	o.Cut = q.Cut
	if q.Delay != nil {
		o.Delay = *q.Delay
	}
	if q.Deadline != nil {
		o.Deadline = *q.Deadline
	}
	return o, o.Check()
}

// Drain begins to drain, or gives what is drained another deadline. When it
// returns nil a restart will not undo it.
func (r *Router) Drain(q DrainRequest) error {
	spec, err := r.latestSpec()
	if err != nil {
		return err
	}
	o, err := q.order(spec.Settings)
	if err != nil {
		return err
	}
	if q.Network != "" && !spec.hasNetwork(q.Network) {
		return fmt.Errorf("drain network %q: %w", q.Network, ErrNoSuchNetwork)
	}
	now := time.Now()
	err = r.drains.edit(func(kept *drain.Records) error {
		names := []string{q.Network}
		if q.Network == "" {
			kept.Gateway, names = &o, spec.networkNames()
		}
		for _, name := range names {
			if have, ok := kept.Networks[name]; ok {
				kept.Networks[name] = have.Amend(o, now)
			} else {
				kept.Networks[name] = o.Begin(now)
			}
		}
		return nil
	})
	if err == nil {
		r.log.Info("drain asked for", "network", q.Network, "gateway", q.Network == "", "delay", o.Delay, "deadline", o.Deadline, "cut", o.Cut)
		r.trigger.Fire()
	}
	return err
}

// Undrain brings a network back, or with "" all of them.
func (r *Router) Undrain(network string) error {
	err := r.drains.edit(func(kept *drain.Records) error {
		_, known := kept.Networks[network]
		switch {
		case network == "" && kept.Gateway == nil && len(kept.Networks) == 0:
			return fmt.Errorf("undrain gateway: %w", ErrNotDrained)
		case network == "":
			*kept = drain.Records{}
		case kept.Gateway != nil:
			return fmt.Errorf("undrain network %q: %w: undrain the gateway", network, ErrWholeGateway)
		case !known:
			return fmt.Errorf("undrain network %q: %w", network, ErrNotDrained)
		default:
			delete(kept.Networks, network)
		}
		return nil
	})
	if err == nil {
		r.log.Info("drain is taken back", "network", network, "gateway", network == "")
		r.trigger.Fire()
	}
	return err
}

// DrainToEnd drains the gateway for the end of this process: nothing of it is
// kept for the next one.
func (r *Router) DrainToEnd() {
	spec, err := r.latestSpec()
	if err != nil {
		return
	}
	r.drains.leave(spec.Settings.Drain)
	r.trigger.Fire()
}

// DrainedToEnd says that every network is drained as far as it goes.
func (r *Router) DrainedToEnd() bool {
	s := r.Status()
	return s == nil || !slices.ContainsFunc(s.Networks, func(n NetworkStatus) bool {
		return n.Drain == nil || n.Drain.Stage != drain.Withdrawn
	})
}

// Settings are those of the last Spec that was set.
func (r *Router) Settings() Settings {
	spec, err := r.latestSpec()
	if err != nil {
		return Settings{}
	}
	return spec.Settings
}

func (r *Router) latestSpec() (*Spec, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.latest == nil {
		return nil, errors.New("no configuration yet")
	}
	return r.latest, nil
}

func (s *Spec) hasNetwork(name string) bool {
	return slices.ContainsFunc(s.Networks, func(n Network) bool { return n.Name == name })
}

func (s *Spec) networkNames() []string {
	out := make([]string, 0, len(s.Networks))
	for _, n := range s.Networks {
		out = append(out, n.Name)
	}
	return out
}

// drainKeeper holds the drains. All may edit, the loop lets them go on.
type drainKeeper struct {
	log    *slog.Logger
	store  Drains
	events *eventLog
	timer  alarm

	mu   sync.Mutex
	kept drain.Records
	// leaving are the drains for the end of this process, of networks that are
	// not drained anyway.
	leaving drain.Records
	// problem is why kept could not be read or written; "" else. unsaved says that
	// the store has not got what kept says.
	problem string
	unsaved bool
}

func newDrainKeeper(log *slog.Logger, store Drains, events *eventLog, fire func()) *drainKeeper {
	k := &drainKeeper{log: log, store: store, events: events, timer: alarm{fire: fire}}
	if store == nil {
		return k
	}
	var err error
	if k.kept, err = store.Load(); err != nil {
		k.kept, k.problem = drain.Records{}, err.Error()+": what was drained is not any more; drain it again"
		log.Error("nothing is drained", "err", err)
	}
	for name, d := range k.kept.Networks {
		log.Info("network is drained since before this process", "network", name, "stage", string(d.Stage), "deadline", d.Deadline)
	}
	return k
}

// edit changes what is kept: in the store first, so that what was promised is
// kept over a restart.
func (k *drainKeeper) edit(change func(*drain.Records) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.kept.Clone()
	if next.Networks == nil {
		next.Networks = map[string]drain.Record{}
	}
	if err := change(&next); err != nil {
		return err
	}
	if err := k.save(next); err != nil {
		return err
	}
	k.tell(k.kept, next)
	k.kept = next
	return nil
}

// tell tells what became of which drain.
func (k *drainKeeper) tell(before, after drain.Records) {
	for name, d := range after.Networks {
		if was := before.Networks[name]; was.Stage != d.Stage {
			k.events.add(Event{Kind: EventDrain, Network: name, State: string(d.Stage), Cause: drainReason(d)})
			k.log.Info("drain goes on", "network", name, "stage", string(d.Stage), "begun", d.Begun, "left", d.Left, "counted", d.Counted)
		}
	}
	for name := range before.Networks {
		if _, still := after.Networks[name]; !still {
			k.events.add(Event{Kind: EventDrain, Network: name, State: "taken back"})
		}
	}
}

// save notes what comes of it.
func (k *drainKeeper) save(r drain.Records) error {
	if k.store == nil {
		return nil
	}
	if err := k.store.Save(r); err != nil {
		k.problem = err.Error()
		return err
	}
	k.problem, k.unsaved = "", false
	return nil
}

func (k *drainKeeper) leave(o drain.Order) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leaving = drain.Records{Gateway: &o, Networks: map[string]drain.Record{}}
}

// advance lets all drains go on and gives them by network. What cannot be saved
// holds nothing up: it is tried again in the next round.
func (k *drainKeeper) advance(now time.Time, spec *Spec, counts map[string]drain.Count) map[string]drain.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := k.step(&k.kept, now, spec, counts)
	for name := range k.kept.Networks {
		delete(k.leaving.Networks, name)
	}
	k.step(&k.leaving, now, spec, counts)
	k.unsaved = k.unsaved || changed
	if before := k.problem; k.unsaved {
		if err := k.save(k.kept); err != nil && k.problem != before {
			k.log.Error("a restart will not know of this drain as it is", "err", err)
		}
	}
	out := map[string]drain.Record{}
	maps.Copy(out, k.leaving.Networks)
	maps.Copy(out, k.kept.Networks)
	var next time.Time
	for _, d := range out {
		if wake := d.Wake(); !wake.IsZero() && (next.IsZero() || wake.Before(next)) {
			next = wake
		}
	}
	if next.IsZero() {
		k.timer.arm(0)
	} else {
		k.timer.arm(max(next.Sub(now), time.Millisecond))
	}
	return out
}

// step goes through one set of records, and says whether it changed in
// something that a restart should know.
func (k *drainKeeper) step(all *drain.Records, now time.Time, spec *Spec, counts map[string]drain.Count) (changed bool) {
	next := all.Clone()
	for name := range next.Networks {
		if !spec.hasNetwork(name) {
			delete(next.Networks, name)
			changed = true
		}
	}
	if all.Gateway != nil {
		if next.Networks == nil {
			next.Networks = map[string]drain.Record{}
		}
		for _, name := range spec.networkNames() {
			_, kept := k.kept.Networks[name]
			if _, ok := next.Networks[name]; !ok && !kept {
				next.Networks[name] = all.Gateway.Begin(now)
				changed = true
			}
		}
	}
	for name, before := range next.Networks {
		d := before.Next(now, counts[name])
		changed = changed || d.Stage != before.Stage || d.Counted != before.Counted
		next.Networks[name] = d
	}
	k.tell(*all, next)
	*all = next
	return changed
}

// trouble is what the user should know of the store; "" is nothing.
func (k *drainKeeper) trouble() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.problem
}

// flowCounts are the flows of networks that refuse new ones, where they were
// counted since.
func (r *Router) flowCounts() map[string]drain.Count {
	res := r.flows.latest()
	if res == nil {
		return nil
	}
	out := map[string]drain.Count{}
	for name, since := range r.refusing {
		if res.round >= since {
			out[name] = drain.Count{Known: true, Flows: res.open[name]}
		}
	}
	return out
}
