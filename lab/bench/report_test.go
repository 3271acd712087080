package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
)

func TestStatistics(t *testing.T) {
	if m := median([]float64{3, 1, 2}); m != 2 {
		t.Errorf("median %v", m)
	}
	if m := median([]float64{4, 1, 2, 3}); m != 2.5 {
		t.Errorf("median %v", m)
	}
	if s := spread([]float64{90, 100, 110}); math.Abs(s-0.2) > 1e-9 {
		t.Errorf("spread %v", s)
	}
}

// measured makes two rounds of every cell at so many nanoseconds a packet,
// which differ by 2.
func measured(name string, nanos int64) []measurement {
	var out []measurement
	for _, c := range reported() {
		for round := range 2 {
			out = append(out, measurement{Case: name, Cell: c, Round: round, Sent: 100, Arrived: 100, Nanos: 100 * (nanos - 1 + 2*int64(round)), WallNanos: 100 * nanos})
		}
	}
	return out
}

func sampleCases() ([]benchCase, []measurement) {
	cases := []benchCase{{Name: plainName, Kind: plainForward, Networks: 1}, egretCase(1, 1, false), egretCase(manyPolicies, 1, false), egretCase(1, 1, true)}
	all := append(measured(generatorCase.Name, 2000), measured(wireCase.Name, 4000)...)
	for i, nanos := range []int64{7000, 9400, 10_000, 4000} {
		all = append(all, measured(cases[i].Name, nanos)...)
	}
	return cases, all
}

func TestReport(t *testing.T) {
	cases, all := sampleCases()
	r, err := newReport(cases, all)
	if err != nil {
		t.Fatal(err)
	}
	f := r.find("egret-p1-n1").Figures[0]
	if f.Instructions != 7400 || f.Ratio != 1.48 || f.HopRatio != 1.8 || f.Lost != 0 || math.Abs(f.Spread-2.0/7400) > 1e-9 {
		t.Errorf("figure %+v", f)
	}
	verdicts := map[string]float64{}
	for _, c := range r.Comparisons {
		verdicts[c.What] = c.Ratio
	}
	if len(verdicts) != 4 || verdicts["egret-p1000-n1 / egret-p1-n1"] != 8000.0/7400 || verdicts["egret-p1-n1-ft / plain"] != 0.4 {
		t.Errorf("comparisons %v", verdicts)
	}
	var table, text bytes.Buffer
	if err := r.write(&table, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"7400", "1.480", "MISSED", "met", "were left out"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, &table)
		}
	}
	if err := r.write(&text, true); err != nil {
		t.Fatal(err)
	}
	var again report
	if err := json.Unmarshal(text.Bytes(), &again); err != nil || again.find("egret-p1-n1").Figures[0] != f {
		t.Errorf("read back: %v, %+v", err, again)
	}
}

func TestRates(t *testing.T) {
	cases, all := sampleCases()
	r, err := newReport(cases, all)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.addRates(all); err != nil {
		t.Fatal(err)
	}
	f := r.find("egret-p1-n1").Figures[0]
	if math.Abs(f.Rate-1e9/9400) > 1 || math.Abs(f.RateRatio-7000.0/9400) > 1e-3 {
		t.Errorf("figure %+v", f)
	}
	if err := r.addRates(all[:len(all)-12]); err == nil {
		t.Error("a rate that was not measured is no error")
	}
}

// TestReportFails holds that loss and missing figures are errors.
func TestReportFails(t *testing.T) {
	cases, all := sampleCases()
	all[len(all)-1].Arrived--
	r, err := newReport(cases, all)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.write(new(bytes.Buffer), false); !errors.Is(err, errLoss) {
		t.Errorf("error %v", err)
	}
	if _, err := newReport(cases, all[:len(all)-2]); err == nil {
		t.Error("a cell that was not measured is no error")
	}
	all[0].Sent = 0
	if _, err := newReport(cases, all); err == nil {
		t.Error("a run that sent nothing is no error")
	}
	cases, all = sampleCases()
	for i := range all {
		if all[i].Case == plainName && all[i].Cell.Family == lab.IPv6 {
			all[i].Nanos = 1
		}
	}
	if _, err := newReport(cases, all); err == nil {
		t.Error("a case that is cheaper than its generator is no error")
	}
}

func TestReadMeasurements(t *testing.T) {
	got, err := readMeasurements(strings.NewReader(`{"case":"plain","cell":{"family":"ipv6","direction":"back"},"sent":3,"arrived":3,"nanos":5}` + "\n"))
	if err != nil || len(got) != 1 || got[0].Cell != (cell{lab.IPv6, toClients}) || got[0].Nanos != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := readMeasurements(strings.NewReader("no JSON\n")); err == nil {
		t.Error("a line that is no measurement is accepted")
	}
}
