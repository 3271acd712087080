package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/egret-router/egret/lab"
)

// A report is what the bench found out. Its JSON form is for machines.
type report struct {
	FlowtableKnown bool          `json:"flowtableKnown"`
	Generator      []figure      `json:"generator"` // gross
	Wire           []figure      `json:"wire"`      // net of the generator
	Cases          []caseFigures `json:"cases"`
	Comparisons    []comparison  `json:"comparisons"`
}

// caseFigures are the figures of one case.
type caseFigures struct {
	benchCase
	Figures []figure `json:"figures"`
}

// A figure is one measured cell.
type figure struct {
	cell
	Instructions float64 `json:"instructions"`         // guest instructions per packet, net of the generator
	Ratio        float64 `json:"ratio,omitempty"`      // to plain forwarding
	HopRatio     float64 `json:"hopRatio,omitempty"`   // the same, both also net of the wire
	Spread       float64 `json:"spread"`               // of the rounds, relative
	Lost         int     `json:"lost"`                 // packets, over all rounds
	Rate         float64 `json:"packetsPerSecond"`     // wall clock, gross; 0 if not measured
	RateRatio    float64 `json:"rateRatio,omitempty"`  // to plain forwarding
	RateSpread   float64 `json:"rateSpread,omitempty"` // of the rounds, relative
}

// A comparison is one of the promised ratios.
type comparison struct {
	What string `json:"what"`
	cell
	Ratio    float64 `json:"ratio"`
	HopRatio float64 `json:"hopRatio"`
	Target   float64 `json:"target"`
}

// reported are the cells of the table: the steady state, and first packets.
func reported() []cell {
	out := cells()
	for _, f := range lab.Families() {
		out = append(out, cell{f, firstOut})
	}
	return out
}

// byCell groups the measurements of one case.
func byCell(all []measurement, name string) map[cell][]measurement {
	groups := map[cell][]measurement{}
	for _, m := range all {
		if m.Case == name {
			groups[m.Cell] = append(groups[m.Cell], m)
		}
	}
	return groups
}

// newReport computes the instructions per packet. It fails when something was
// not measured.
func newReport(cases []benchCase, all []measurement) (*report, error) {
	r := &report{}
	gross := func(name string) ([]figure, error) {
		var out []figure
		groups := byCell(all, name)
		for _, c := range reported() {
			f, err := grossFigure(c, groups[c])
			if err != nil {
				return nil, fmt.Errorf("case %q: %w", name, err)
			}
			out = append(out, f)
		}
		return out, nil
	}
	if !slices.ContainsFunc(cases, func(c benchCase) bool { return c.Name == plainName }) {
		return nil, errors.New("plain forwarding was not measured")
	}
	var err error
	if r.Generator, err = gross(generatorCase.Name); err != nil {
		return nil, err
	}
	net := func(name string) ([]figure, error) {
		figures, err := gross(name)
		for i := range figures {
			f := &figures[i]
			total := f.Instructions
			f.Instructions -= r.Generator[i].Instructions
			if f.Instructions <= 0 {
				return nil, fmt.Errorf("case %q, %s %s: %.0f instructions net of the generator", name, f.Family, f.Direction, f.Instructions)
			}
			f.Spread *= total / f.Instructions
		}
		return figures, err
	}
	if r.Wire, err = net(wireCase.Name); err != nil {
		return nil, err
	}
	for _, c := range cases {
		figures, err := net(c.Name)
		if err != nil {
			return nil, err
		}
		r.Cases = append(r.Cases, caseFigures{c, figures})
	}
	r.ratios()
	r.compare()
	return r, nil
}

func grossFigure(c cell, runs []measurement) (figure, error) {
	f := figure{cell: c}
	if len(runs) == 0 {
		return f, fmt.Errorf("%s %s was not measured", c.Family, c.Direction)
	}
	var each []float64
	for _, m := range runs {
		if m.Sent == 0 || m.Nanos <= 0 {
			return f, fmt.Errorf("%s %s: nothing was sent", c.Family, c.Direction)
		}
		each = append(each, float64(m.Nanos)/float64(m.Sent))
		f.Lost += m.Sent - m.Arrived
	}
	f.Instructions, f.Spread = median(each), spread(each)
	return f, nil
}

func (r *report) find(name string) *caseFigures {
	i := slices.IndexFunc(r.Cases, func(c caseFigures) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Cases[i]
}

func (r *report) ratios() {
	plain := r.find(plainName)
	for _, c := range r.Cases {
		for i := range c.Figures {
			f, p := &c.Figures[i], plain.Figures[i]
			f.Ratio, f.HopRatio = r.ratio(i, *f, p)
		}
	}
}

// ratio compares the i-th figures of two cases, with the wire and without it.
func (r *report) ratio(i int, f, other figure) (whole, hop float64) {
	wire := r.Wire[i].Instructions
	return f.Instructions / other.Instructions, (f.Instructions - wire) / (other.Instructions - wire)
}

// addRates adds the packets per second, medians over the rounds.
func (r *report) addRates(all []measurement) error {
	for _, c := range r.Cases {
		groups := byCell(all, c.Name)
		for i := range c.Figures {
			f := &c.Figures[i]
			if f.Direction == firstOut {
				continue
			}
			var rates []float64
			for _, m := range groups[f.cell] {
				rates = append(rates, float64(m.Sent)/(float64(m.WallNanos)/1e9))
				f.Lost += m.Sent - m.Arrived
			}
			if len(rates) == 0 {
				return fmt.Errorf("case %q: the rate of %s %s was not measured", c.Name, f.Family, f.Direction)
			}
			f.Rate, f.RateSpread = median(rates), spread(rates)
		}
	}
	plain := r.find(plainName)
	for _, c := range r.Cases {
		for i := range c.Figures {
			if rate := plain.Figures[i].Rate; rate > 0 {
				c.Figures[i].RateRatio = c.Figures[i].Rate / rate
			}
		}
	}
	return nil
}

// The promises: to plain forwarding, and of many policies to one.
const (
	slowTarget      = 1.50
	flowtableTarget = 0.35
	policiesTarget  = 1.05
)

// compare fills in the promised ratios of the cases that were measured.
func (r *report) compare() {
	for _, c := range r.Cases {
		if c.Kind != egretRouter || c.Edit != "" {
			continue
		}
		target := slowTarget
		if c.Flowtable {
			target = flowtableTarget
		}
		r.against(c, plainName, target)
		if c.Policies > 1 {
			r.against(c, egretCase(1, c.Networks, c.Flowtable).Name, policiesTarget)
		}
	}
}

func (r *report) against(c caseFigures, other string, target float64) {
	base := r.find(other)
	if base == nil {
		return
	}
	for i, f := range c.Figures {
		if f.Direction != firstOut {
			whole, hop := r.ratio(i, f, base.Figures[i])
			r.Comparisons = append(r.Comparisons, comparison{c.Name + " / " + other, f.cell, whole, hop, target})
		}
	}
}

var errLoss = errors.New("packets were lost, so the figures do not count")

// write writes the report and fails if packets were lost.
func (r *report) write(out io.Writer, asJSON bool) error {
	var err error
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.table(out)
	}
	for _, c := range r.Cases {
		for _, f := range c.Figures {
			if f.Lost != 0 {
				err = errors.Join(err, fmt.Errorf("case %q, %s %s: %d lost: %w", c.Name, f.Family, f.Direction, f.Lost, errLoss))
			}
		}
	}
	return err
}

func (r *report) table(out io.Writer) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "CASE\tFAMILY\tWAY\tINSTR/PACKET\tTO PLAIN\tNO WIRE\tSPREAD\tLOST\tKPPS\tTO PLAIN\tSPREAD\t")
	line := func(name string, f figure) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%s\t%s\t%.2f %%\t%d\t", name, f.Family, f.Direction, f.Instructions, ratio(f.Ratio), ratio(f.HopRatio), 100*f.Spread, f.Lost)
		if f.Rate > 0 {
			fmt.Fprintf(w, "%.1f\t%s\t%.0f %%\t\n", f.Rate/1000, ratio(f.RateRatio), 100*f.RateSpread)
		} else {
			fmt.Fprint(w, "-\t-\t-\t\n")
		}
	}
	for _, f := range r.Generator {
		line("(generator)", f)
	}
	for _, f := range r.Wire {
		line("(wire)", f)
	}
	for _, c := range r.Cases {
		for _, f := range c.Figures {
			line(c.Name, f)
		}
	}
	fmt.Fprintln(w, "\nCOMPARISON\tFAMILY\tWAY\tRATIO\tNO WIRE\tTARGET\t\t")
	for _, c := range r.Comparisons {
		verdict := "met"
		if c.Ratio > c.Target {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%s\t\n", c.What, c.Family, c.Direction, c.Ratio, c.HopRatio, c.Target, verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !r.FlowtableKnown {
		b.WriteString("\nThis egret has no setting `flowtable`: those cases were left out.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func ratio(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", x)
}
