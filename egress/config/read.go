package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/egret-router/egret/egress"
)

// maxFile bounds the size of a configuration file, in bytes.
const maxFile = 64 << 20

// Load reads, decodes and validates the file at path. A configuration that is
// refused is an *Error; any other error is about reading the file.
func Load(path string) (*egress.Spec, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Read(path, data)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tooLarge := fmt.Errorf("%q is larger than %d MiB", path, maxFile>>20)
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Size() > maxFile {
		return nil, tooLarge
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile { // not a regular file, or it grew
		return nil, tooLarge
	}
	return data, nil
}

// Read decodes and validates the content of a file. The extension of name
// chooses the format: .toml, else YAML. Every error is an *Error.
func Read(name string, data []byte) (*egress.Spec, error) {
	format := "yaml"
	if strings.EqualFold(filepath.Ext(name), ".toml") {
		format = "toml"
	}
	root, unreadable := parseTree(format, data)
	if root == nil {
		return nil, newError(name, unreadable)
	}
	findings, bounded := shape(root)
	if !bounded {
		return nil, newError(name, findings)
	}
	raw, err := decode(root, len(findings) == 0)
	if err != nil && len(findings) == 0 {
		return nil, newError(name, syntaxFindings(err))
	}
	r := report{}
	spec := parse(&r, raw)
	if len(findings) == 0 && len(r.findings) == 0 {
		return &spec, nil
	}
	if err == nil || !errors.As(err, new(viper.ConfigParseError)) {
		findings = withoutConsequences(findings, r.findings)
	}
	for i, f := range findings {
		if f.line == 0 {
			findings[i].line = lineOf(root, f.at)
		}
	}
	return nil, newError(name, findings)
}

// parseTree reads data into a tree that knows its lines (YAML) and the user's
// spelling. A nil tree comes with the findings that say why.
func parseTree(format string, data []byte) (*yaml.Node, []finding) {
	var document yaml.Node
	if format == "toml" {
		settings := map[string]any{}
		decoder, err := viper.NewCodecRegistry().Decoder(format)
		if err == nil {
			err = decoder.Decode(data, settings)
		}
		if err == nil {
			err = document.Encode(settings)
		}
		if err != nil {
			return nil, syntaxFindings(err)
		}
		return &document, nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, []finding{{message: "the file is empty", line: 1}}
	}
	if err != nil {
		return nil, syntaxFindings(err)
	}
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		return nil, []finding{{message: "a second document begins here (---): only one is allowed", line: second.Line}}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxFindings(err)
	}
	root := resolve(document.Content[0])
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, []finding{{message: "the file is empty", line: 1}}
	}
	if root.Kind != yaml.MappingNode {
		return nil, []finding{{message: "must be an object with the keys " + strings.Join(fieldNames(reflect.TypeFor[Raw]()), ", "), line: root.Line}}
	}
	return root, nil
}

// tree gives viper what was parsed already, in place of a file's bytes.
type tree struct{ root *yaml.Node }

// Decoder is for viper; every format is the tree.
func (t tree) Decoder(string) (viper.Decoder, error) { return t, nil }

// Decode is for viper.
func (t tree) Decode(_ []byte, settings map[string]any) error { return t.root.Decode(settings) }

// decode lets a fresh viper read the tree. With exact, whatever the schema does
// not know is an error; without, the result is as good as the file allows.
//
// viper splits keys at its delimiter, so that is one no key contains; weak
// typing would turn -1 into 4294967295.
func decode(root *yaml.Node, exact bool) (Raw, error) {
	v := viper.NewWithOptions(viper.KeyDelimiter("::"), viper.WithDecoderRegistry(tree{root}))
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(nil)); err != nil {
		return Raw{}, err
	}
	strict := func(c *mapstructure.DecoderConfig) {
		c.WeaklyTypedInput = false
		c.DecodeHook = expandShorthand
	}
	unmarshal := v.Unmarshal
	if exact {
		unmarshal = v.UnmarshalExact
	}
	var raw Raw
	err := unmarshal(&raw, strict)
	return raw, err
}

// expandShorthand makes an object of a string that stands for one.
func expandShorthand(from, to reflect.Type, data any) (any, error) {
	if key := shorthand(to); key != "" && from.Kind() == reflect.String {
		return map[string]any{key: data}, nil
	}
	if n, ok := data.(int); ok && to == reflect.TypeFor[Quorum]() {
		return strconv.Itoa(n), nil
	}
	return data, nil
}

// syntaxFindings makes findings of a decoder's error, one for each line of it,
// with the line numbers it mentions.
func syntaxFindings(err error) []finding {
	numbered := regexp.MustCompile(`^line (\d+): *`)
	// The YAML parser counts lines from 0 in its own errors, but not in its scanner's.
	fromZero := regexp.MustCompile("^did not find expected (node content|'-' indicator|key|',' or|<)")
	var positioned interface{ Position() (row, column int) } // TOML
	row := 1
	if errors.As(err, &positioned) {
		row, _ = positioned.Position()
	}
	var findings []finding
	for text := range strings.SplitSeq(strings.TrimPrefix(err.Error(), "While parsing config: "), "\n") {
		text = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(text), "yaml:"), "toml:"))
		if text == "" || text == "unmarshal errors:" {
			continue
		}
		f := finding{line: row}
		if m := numbered.FindStringSubmatch(text); m != nil {
			text = text[len(m[0]):]
			f.line, _ = strconv.Atoi(m[1])
			if fromZero.MatchString(text) {
				f.line++
			}
		}
		f.message = "cannot be read: " + shorten(text)
		findings = append(findings, f)
	}
	if findings == nil {
		findings = []finding{{message: "cannot be read", line: 1}}
	}
	return findings
}

// lineOf finds the line of a field, or of the innermost object around it that
// is in the file.
func lineOf(root *yaml.Node, at path) int {
	n, line := root, root.Line
	for _, step := range strings.FieldsFunc(string(at), func(c rune) bool { return c == '.' || c == '[' || c == ']' }) {
		n = resolve(n)
		var next *yaml.Node
		if i, err := strconv.Atoi(step); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			next = n.Content[i]
			line = next.Line
		} else if key, value := lookup(n, step); key != nil {
			next = value
			line = key.Line
		}
		if next == nil {
			break
		}
		n = next
	}
	return line
}

// lookup finds a key of an object without regard to case.
func lookup(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for _, m := range append([]*yaml.Node{n}, merges(n)...) {
		for i := 0; i+1 < len(m.Content); i += 2 {
			if strings.EqualFold(resolve(m.Content[i]).Value, name) {
				return m.Content[i], m.Content[i+1]
			}
		}
	}
	return nil, nil
}
