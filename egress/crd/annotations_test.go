package crd

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/lab/kube"
)

// TestAnnotations holds which annotations of pods, namespaces and nodes the API
// server refuses, by itself, and with what words.
func TestAnnotations(t *testing.T) {
	s := kube.New(t, kube.Options{})
	if out, err := s.Kubectl("apply", "--kustomize=manifests"); err != nil {
		t.Fatal(out, err)
	}
	at := func(key string) string { return "metadata.annotations[" + annotationPrefix + key + "]: " }
	cases := []struct{ name, kind, annotations, want string }{
		{"max-alone", "Pod", "maxNextHops: '1'", at("maxNextHops") + "is for gateways that are selected beside it: add selector, or set maxNextHops in the rules of the policy"},
		{"max-policy", "Namespace", "maxNextHops: '1', egressGatewayPolicy: p", at("maxNextHops") + "is for gateways that are selected beside it: add selector, or set maxNextHops in the rules of the policy"},
		{"max-word", "Pod", "maxNextHops: two, selector: all()", at("maxNextHops") + `"two" is not allowed: a number is, 0 (all) to 65535`},
		{"max-negative", "Namespace", "maxNextHops: '-1', selector: all()", at("maxNextHops") + `"-1" is not allowed: a number is, 0 (all) to 65535`},
		{"max-large", "Pod", "maxNextHops: '65536', selector: all()", at("maxNextHops") + `"65536" is not allowed: a number is, 0 (all) to 65535`},
		{"unknown", "Pod", "sellector: all()", at("sellector") + "there is no such annotation for a Pod: use egressGatewayPolicy, selector, namespaceSelector, maxNextHops"},
		{"unknown", "Namespace", "egressgatewaypolicy: p", at("egressgatewaypolicy") + "there is no such annotation for a Namespace: use egressGatewayPolicy, selector, namespaceSelector, maxNextHops"},
		{"unknown", "Node", "pods: 10.0.0.0/8", at("pods") + "there is no such annotation for a Node: use pod-prefixes"},
		{"prefixes", "Node", "pod-prefixes: '10.0.0.0/8, ten'", at("pod-prefixes") + "must be CIDRs, separated by commas, like 10.244.1.0/24,fd00:1::/64"},
		{"empty", "Pod", "selector: ' '", at("selector") + "is empty: give it a value, or take it away"},
		{"empty-policy", "Namespace", "egressGatewayPolicy: ''", at("egressGatewayPolicy") + "is empty: give it a value, or take it away"},
		{"namespaces-alone", "Pod", "namespaceSelector: all()", at("namespaceSelector") + "means nothing alone: add selector beside it, which selects gateways in these namespaces"},
		{"policy", "Pod", "egressGatewayPolicy: p", ""},
		{"max", "Pod", "selector: a == 'b', namespaceSelector: all(), maxNextHops: ' 2'", ""},
		{"zero", "Namespace", "selector: a == 'b', maxNextHops: '0'", ""},
		{"prefixes", "Node", "pod-prefixes: '10.0.0.0/8, fd00::/64'", ""},
		{"none", "Pod", "", ""},
	}
	text := func(name, kind, annotations string) string {
		var list []string
		for a := range strings.SplitSeq(annotations, ", ") {
			if a != "" && strings.Contains(a, ": ") {
				a = annotationPrefix + a
			} else if len(list) > 0 {
				list[len(list)-1] += ", " + a // a value with a comma
				continue
			}
			list = append(list, a)
		}
		spec := ""
		if kind == "Pod" {
			spec = ", spec: {containers: [{name: main, image: none}]}"
		}
		return fmt.Sprintf("{apiVersion: v1, kind: %s, metadata: {name: %s, annotations: {%s}}%s}", kind, name, strings.Join(list, ", "), spec)
	}
	kube.Eventually(t, time.Minute, "the policy to hold", func() error {
		if _, err := s.KubectlAs("admin", text("early", "Namespace", "unknown: x"), "apply", "--dry-run=server", "--filename=-"); err == nil {
			return errors.New("not yet")
		}
		return nil
	})
	for _, c := range cases {
		err := s.Apply(text(c.name, c.kind, c.annotations))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s %s: %v", c.kind, c.name, err)
		case c.want != "" && (err == nil || !strings.HasSuffix(err.Error(), c.want)):
			t.Errorf("%s %s: %v\nwant %s", c.kind, c.name, err, c.want)
		}
	}
	out, err := s.KubectlAs("admin", text("both", "Pod", "egressGatewayPolicy: p, selector: all()"), "apply", "--filename=-", "--warnings-as-errors")
	if err == nil || !strings.Contains(err.Error(), at("selector")+"has no effect beside egressGatewayPolicy, which decides: take one of them away") {
		t.Errorf("both: %s %v", out, err)
	}
	if _, err := s.Kubectl("get", "pod", "both"); err != nil {
		t.Errorf("what has no effect was refused: %v", err)
	}
	// An object with a mistake of before can be changed, and mended, but not otherwise.
	for _, c := range []struct{ binding, patch, want string }{
		{"Warn", `{"metadata":{"annotations":{"` + annotationPrefix + `wrong":"x"}}}`, ""},
		{"Deny", `{"metadata":{"labels":{"a":"b"},"annotations":{"` + AnnotationMaintenanceIP + `":"192.0.2.1"}}}`, ""},
		{"Deny", `{"metadata":{"annotations":{"` + cluster.AnnotationSelector + `":"all()"}}}`, "there is no such annotation"},
		{"Deny", `{"metadata":{"annotations":{"` + annotationPrefix + `wrong":null}}}`, ""},
	} {
		if out, err := s.Kubectl("patch", "validatingadmissionpolicybinding", "egret-annotations", "--type=merge", `--patch={"spec":{"validationActions":["`+c.binding+`"]}}`); err != nil {
			t.Fatal(out, err)
		}
		kube.Eventually(t, time.Minute, "the change "+c.patch, func() error {
			_, err := s.Kubectl("patch", "pod", "none", "--patch="+c.patch)
			if c.want == "" || err == nil {
				return err
			}
			if !strings.Contains(err.Error(), c.want) {
				return err
			}
			return nil
		})
	}
}

// TestAnnotationEvents holds that what the API server cannot know is told in events
// of the pod or the namespace, once, and that describe shows them.
func TestAnnotationEvents(t *testing.T) {
	w := newWorld(t)
	w.node(1)
	w.apply("{apiVersion: v1, kind: Namespace, metadata: {name: lost, annotations: {" + cluster.AnnotationPolicy + ": none}}}")
	w.pod("default", "wrong", "n1", "10.244.1.2", map[string]string{cluster.AnnotationSelector: "a = 'b'"})
	w.pod("default", "bound", "n1", "10.244.1.3", map[string]string{cluster.AnnotationSelector: "all()", cluster.AnnotationMaxNextHops: "many"})
	stop := w.controller("one")
	for pod, want := range map[string]string{
		"wrong": `Warning  Invalid  0s    egret-controller  metadata.annotations[egress.egret-router.io/selector]: "a = 'b'" is no selector: at character 3: ==, !=, in, not in, contains, starts with or ends with is expected, not "= 'b'"`,
		"bound": `Warning  Invalid  0s    egret-controller  metadata.annotations[egress.egret-router.io/maxNextHops]: "many" is not allowed: a number is, 0 (all) to 65535`,
	} {
		kube.Eventually(t, time.Minute, "an event of pod "+pod, func() error {
			_, shown, _ := strings.Cut(w.kubectl("describe", "pod", pod), "Events:")
			if !strings.Contains(strings.Join(strings.Fields(shown), " "), strings.Join(strings.Fields(want)[3:], " ")) {
				return errors.New(shown)
			}
			return nil
		})
	}
	events := []string{"get", "events", "--namespace=default", "--output=jsonpath={range .items[?(@.involvedObject.kind==\"Namespace\")]}{.involvedObject.name} {.reason} {.message};{end}"}
	want := `lost NotFound metadata.annotations[egress.egret-router.io/egressGatewayPolicy]: there is no policy "none": all traffic that would leave the cluster is dropped;`
	w.eventually(want, events...)
	stop()
	w.controller("two")
	w.eventually("two", "get", "lease", leaseName, "--namespace="+ownNamespace, "--output=jsonpath={.spec.holderIdentity}")
	w.apply(object("EgressGatewayPolicy", "none", "{rules: [{destination: {cidr: 10.0.0.0/8}}]}"))
	w.eventually("True", "get", "egp", "none", readyIs)
	if got := w.kubectl(events...); got != want {
		t.Errorf("another leader told again: %s", got)
	}
}
