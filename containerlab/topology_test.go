package containerlab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// topology is what the checks beyond the schema need of a topology file.
type topology struct {
	Name     string
	Topology struct {
		Nodes map[string]struct {
			Image string
			Binds []string
		}
		Links []struct{ Endpoints []string }
	}
}

// readSchema reads containerlab's schema of topology files.
func readSchema() (*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	data, err := os.ReadFile("testdata/clab.schema.json")
	if err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	const name = "clab.schema.json"
	if err := compiler.AddResource(name, document); err != nil {
		return nil, err
	}
	return compiler.Compile(name)
}

// check reports everything that is wrong with a topology of this folder.
func check(schema *jsonschema.Schema, text []byte) error {
	var document any
	if err := yaml.Unmarshal(text, &document); err != nil {
		return err
	}
	var t topology
	if err := yaml.Unmarshal(text, &t); err != nil {
		return err
	}
	return errors.Join(schema.Validate(document), t.checkBinds(), t.checkLinks(), t.checkImages())
}

// checkBinds wants every bind's source to be a file of this folder.
func (t *topology) checkBinds() error {
	var errs []error
	for name, node := range t.Topology.Nodes {
		for _, bind := range node.Binds {
			source, target, _ := strings.Cut(bind, ":")
			info, err := os.Stat(source)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("node %q: bind: %w", name, err))
			case !info.Mode().IsRegular() || !filepath.IsLocal(source):
				errs = append(errs, fmt.Errorf("node %q: bind %q is not a file of this folder", name, source))
			case !strings.HasPrefix(target, "/"):
				errs = append(errs, fmt.Errorf("node %q: bind %q has no absolute target", name, bind))
			}
		}
	}
	return errors.Join(errs...)
}

// checkLinks wants two ends of existing nodes per link, every end once, and no
// node without a link.
func (t *topology) checkLinks() error {
	var errs []error
	ends, linked := map[string]bool{}, map[string]bool{}
	for _, link := range t.Topology.Links {
		if len(link.Endpoints) != 2 {
			errs = append(errs, fmt.Errorf("link %q: want 2 endpoints", link.Endpoints))
		}
		for _, end := range link.Endpoints {
			node, device, ok := strings.Cut(end, ":")
			if _, known := t.Topology.Nodes[node]; !known || !ok || device == "" || len(device) > 15 {
				errs = append(errs, fmt.Errorf("link %q: endpoint %q is not an interface of a node", link.Endpoints, end))
			}
			if ends[end] {
				errs = append(errs, fmt.Errorf("link %q: endpoint %q is used twice", link.Endpoints, end))
			}
			ends[end], linked[node] = true, true
		}
	}
	for name := range t.Topology.Nodes {
		if !linked[name] {
			errs = append(errs, fmt.Errorf("node %q has no link", name))
		}
	}
	return errors.Join(errs...)
}

// checkImages wants only images that are built here: nothing is pulled. Which
// there are is known to, and tested in, run/.
func (t *topology) checkImages() error {
	var errs []error
	for name, node := range t.Topology.Nodes {
		if !strings.HasPrefix(node.Image, "egret-lab/") {
			errs = append(errs, fmt.Errorf("node %q: image %q is not built here", name, node.Image))
		}
	}
	return errors.Join(errs...)
}
