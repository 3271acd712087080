package crd

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// TestSameNames holds that objects and the file have the same fields, but for
// those that are named here.
func TestSameNames(t *testing.T) {
	differ := map[string][]string{
		"Network":      {"-name"}, // the object's own
		"Peer":         {"-passwordFile", "-passwordEnv", "+password"},
		"PoolSettings": {"-name"},
	}
	var compare func(object, file reflect.Type)
	seen := map[reflect.Type]bool{}
	compare = func(object, file reflect.Type) {
		for object.Kind() == reflect.Pointer || object.Kind() == reflect.Slice {
			object = object.Elem()
		}
		for file.Kind() == reflect.Pointer || file.Kind() == reflect.Slice {
			file = file.Elem()
		}
		if file.Kind() != reflect.Struct || seen[file] {
			return
		}
		seen[file] = true
		ours := map[string]reflect.Type{}
		for i := range object.NumField() {
			name, _, _ := strings.Cut(object.Field(i).Tag.Get("json"), ",")
			ours[name] = object.Field(i).Type
		}
		for i := range file.NumField() {
			name := file.Field(i).Tag.Get("mapstructure")
			one, ok := ours[name]
			delete(ours, name)
			switch {
			case ok:
				compare(one, file.Field(i).Type)
			case !slices.Contains(differ[object.Name()], "-"+name):
				t.Errorf("%s has no field %s, which the file has", object.Name(), name)
			}
		}
		for name := range ours {
			if !slices.Contains(differ[object.Name()], "+"+name) {
				t.Errorf("%s has a field %s, which the file has not", object.Name(), name)
			}
		}
	}
	compare(reflect.TypeFor[v1alpha1.Network](), reflect.TypeFor[config.RawNetwork]())
	compare(reflect.TypeFor[v1alpha1.PoolSettings](), reflect.TypeFor[config.RawPool]())
}

// TestSameMeaning holds that a network and a pool as objects mean what they mean
// in a file, with every field that there is: those of the reference.
func TestSameMeaning(t *testing.T) {
	text, err := os.ReadFile("../config/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Networks, Pools []map[string]any }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Networks) < 2 || len(file.Pools) < 2 {
		t.Fatal("the reference has too little to compare")
	}
	for _, n := range file.Networks {
		sameNetwork(t, n)
	}
	for _, p := range file.Pools {
		want, problems := decodePart[config.RawPool](p)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		var object v1alpha1.EgressPool
		object.Name = want.Name
		delete(p, "name")
		strictly(t, p, &object.Spec.PoolSettings)
		got, wrong := convertPool(&object)
		if diff := cmp.Diff(want, got.Raw); diff != "" || len(wrong) > 0 {
			t.Errorf("pool %s: %v\n%s", want.Name, wrong, diff)
		}
	}
}

func sameNetwork(t *testing.T, n map[string]any) {
	want, problems := decodePart[config.RawNetwork](n)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if want.BGP != nil {
		for i := range want.BGP.Peers { // the one difference
			want.BGP.Peers[i].PasswordFile, want.BGP.Peers[i].PasswordEnv = "", ""
		}
	}
	object := v1alpha1.ExternalNetwork{ObjectMeta: metav1.ObjectMeta{Name: want.Name}}
	strictly(t, asObject(t, want), &object.Spec.Network)
	got, wrong := convertNetwork(&object, nil)
	if diff := cmp.Diff(want, got.Raw); diff != "" || len(wrong) > 0 {
		t.Errorf("network %s: %v\n%s", want.Name, wrong, diff)
	}
}

// asObject is a raw structure as the object's author would write it.
func asObject(t *testing.T, raw config.RawNetwork) any {
	t.Helper()
	tree := written(reflect.ValueOf(raw)).(map[string]any)
	delete(tree, "name")
	return tree
}

// written is a raw structure as a file would say it, without what is absent. An
// empty list means something in one place only.
func written(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		return written(v.Elem())
	case reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, written(v.Index(i)))
		}
		return list
	case reflect.Struct:
		tree := map[string]any{}
		for i := range v.NumField() {
			f := v.Field(i)
			if f.IsZero() || f.Kind() == reflect.Slice && f.Len() == 0 && v.Type() != reflect.TypeFor[config.RawExport]() {
				continue
			}
			tree[v.Type().Field(i).Tag.Get("mapstructure")] = written(f)
		}
		return tree
	}
	return v.Interface()
}

// strictly decodes into an object as the API server does, and fails where it
// would drop a field.
func strictly(t *testing.T, from, to any) {
	t.Helper()
	text, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// FuzzSameNetwork gives texts to both sides: what the file's decoder accepts of a
// network is the same by way of an object.
func FuzzSameNetwork(f *testing.F) {
	for _, seed := range []string{
		`{"interfaces":[{"name":"eth1"}],"maxNextHops":0}`,
		`{"bgp":{"asn":64512,"peers":[{"address":"172.16.0.2","asn":65001,"export":{"communities":[]},"passive":true}]}}`,
		`{"probes":[{"type":"icmp","targets":[{"target":"10.0.0.1"}],"require":"2","damping":{"enabled":false}}]}`,
		`{"probes":[{"type":"http","targets":["http://10.0.0.1/"],"http":{"headers":[{"name":"a","value":"b"}]}}]}`,
		`{"staticRoutes":[{"prefix":"0.0.0.0/0","nextHops":["172.16.0.2",{"address":"172.16.0.3","weight":2}]}],"failback":"never"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		raw, problems := config.Decode[config.RawNetwork]([]byte(text))
		if len(problems) > 0 || !wellFormed(reflect.ValueOf(raw)) {
			return
		}
		raw.Name = "red"
		if raw.BGP != nil {
			for i := range raw.BGP.Peers {
				raw.BGP.Peers[i].PasswordFile, raw.BGP.Peers[i].PasswordEnv = "", ""
			}
		}
		object := v1alpha1.ExternalNetwork{ObjectMeta: metav1.ObjectMeta{Name: "red"}}
		strictly(t, asObject(t, raw), &object.Spec.Network)
		got, wrong := convertNetwork(&object, nil)
		if diff := cmp.Diff(written(reflect.ValueOf(raw)), written(reflect.ValueOf(got.Raw))); diff != "" || len(wrong) > 0 {
			t.Errorf("%v\n%s", wrong, diff)
		}
	})
}

// wellFormed says whether an object can say it at all: JSON has no strings that
// are not UTF-8, and required lists are not absent.
func wellFormed(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.IsNil() || wellFormed(v.Elem())
	case reflect.Slice:
		if v.IsNil() {
			return true
		}
		for i := range v.Len() {
			if !wellFormed(v.Index(i)) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !wellFormed(v.Field(i)) {
				return false
			}
		}
	case reflect.String:
		text, err := json.Marshal(v.String())
		var back string
		return err == nil && json.Unmarshal(text, &back) == nil && back == v.String()
	}
	return true
}
