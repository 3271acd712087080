package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/lab/kube"
)

// workload is what this test reads of a Deployment or a DaemonSet.
type workload struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Template struct {
			Spec struct {
				HostNetwork bool `yaml:"hostNetwork"`
				Containers  []container
				Volumes     []struct {
					Name     string
					HostPath struct{ Path string } `yaml:"hostPath"`
				}
			}
		}
	}
}

type container struct {
	Command, Args []string
	Env           []struct{ Name string }
	Ports         []struct {
		ContainerPort int `yaml:"containerPort"`
	}
	ReadinessProbe *struct {
		HTTPGet struct {
			Host, Path string
			Port       int
		} `yaml:"httpGet"`
	} `yaml:"readinessProbe"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

// workloads are those of rendered manifests, by the subcommand that they run.
func workloads(t *testing.T, text string) map[string]workload {
	t.Helper()
	all := map[string]workload{}
	for decoder := yaml.NewDecoder(bytes.NewReader([]byte(text))); ; {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return all
		}
		var w workload
		var kind struct{ Kind string }
		if err == nil {
			err = node.Decode(&kind)
		}
		if err == nil && kind.Kind != "Deployment" && kind.Kind != "DaemonSet" {
			continue
		}
		if err == nil {
			err = node.Decode(&w)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range w.Spec.Template.Spec.Containers {
			if len(c.Command) > 0 || len(c.Args) == 0 {
				t.Fatalf("%s: the image's entry point is egret, arguments come after it: %+v", w.Metadata.Name, c)
			}
			all[c.Args[0]] = w
		}
	}
}

// TestManifestsMatchCommands holds that what the manifests pass to the commands is
// what these understand: arguments, environment, ports, probes and paths of the host.
func TestManifestsMatchCommands(t *testing.T) {
	binaries, helm := kube.Require(t), kube.RequireHelm(t)
	const folder = "../../egress/crd/manifests"
	for name, command := range map[string][]string{
		"Kustomize": {binaries.Path("kubectl"), "kustomize", folder},
		"Helm":      {helm, "template", "egret", folder + "/chart/egret", "--kube-version=v1.36.3", "--set=egressIPSupport=EnabledPerNamespace", "--set=agent.startupTaint=true"},
	} {
		text, err := kube.Command(t.Context(), command...)
		if err != nil {
			t.Fatal(err)
		}
		all := workloads(t, text)
		if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, []string{"agent", "controller", "gateway"}) {
			t.Fatalf("%s runs %q", name, got)
		}
		for role, w := range all {
			t.Run(name+"/"+role, func(t *testing.T) { checkWorkload(t, w) })
		}
	}
}

func checkWorkload(t *testing.T, w workload) {
	spec := w.Spec.Template.Spec
	c := spec.Containers[0]
	for _, e := range c.Env {
		t.Setenv(e.Name, "value-of-"+e.Name)
	}
	cmd, rest, err := rootCommand().Find(c.Args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil {
		t.Fatalf("egret %q: %v", c.Args, err)
	}
	values := map[string]string{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { values[f.Value.String()] = f.Name })
	for _, e := range c.Env {
		if values["value-of-"+e.Name] == "" {
			t.Errorf("nothing reads %s", e.Name)
		}
	}
	used := map[string]string{}
	for _, m := range c.VolumeMounts {
		if used[m.Name] = m.MountPath; values[m.MountPath] == "" {
			t.Errorf("nothing uses %s", m.MountPath)
		}
	}
	for _, v := range spec.Volumes {
		if used[v.Name] != v.HostPath.Path {
			t.Errorf("volume %s of the host is mounted at %q, which is another path than %s", v.Name, used[v.Name], v.HostPath.Path)
		}
	}
	node := cmd.Flags().Lookup("node") != nil
	for _, flag := range []string{"run-dir", "state-dir"} {
		if f := cmd.Flags().Lookup(flag); node && !slices.ContainsFunc(c.VolumeMounts, func(m struct {
			Name      string
			MountPath string `yaml:"mountPath"`
		}) bool {
			return m.MountPath == f.Value.String()
		}) {
			t.Errorf("%s of --%s is not the host's", f.Value, flag)
		}
	}
	if spec.HostNetwork != node {
		t.Errorf("the host's network: %v", spec.HostNetwork)
	}
	for _, p := range c.Ports {
		if !listens(cmd, "", p.ContainerPort) {
			t.Errorf("nothing listens at port %d", p.ContainerPort)
		}
	}
	if p := c.ReadinessProbe; p != nil {
		if !listens(cmd, p.HTTPGet.Host, p.HTTPGet.Port) {
			t.Errorf("nothing listens at %s port %d", p.HTTPGet.Host, p.HTTPGet.Port)
		}
		checkReadiness(t, p.HTTPGet.Path)
	} else if cmd.Name() == "agent" {
		t.Error("the agent has no readiness probe")
	}
}

// listens says whether a flag of cmd is an address to listen at.
func listens(cmd *cobra.Command, host string, port int) bool {
	found := false
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		found = found || f.Value.String() == net.JoinHostPort(host, strconv.Itoa(port))
	})
	return found
}

// checkReadiness asks the agent's handler as a kubelet does.
func checkReadiness(t *testing.T, path string) {
	for _, c := range []struct {
		status *steer.Status
		want   int
	}{
		{nil, http.StatusServiceUnavailable},
		{&steer.Status{Round: steer.RoundStatus{Rounds: 2, Errors: 2}}, http.StatusServiceUnavailable},
		{&steer.Status{Round: steer.RoundStatus{Rounds: 2, Errors: 1}}, http.StatusOK},
	} {
		answer := httptest.NewRecorder()
		handler := agentHandler(func() *steer.Status { return c.status }, slog.New(slog.DiscardHandler))
		handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if answer.Code != c.want {
			t.Errorf("%s of %s is %d, want %d", path, fmt.Sprint(c.status), answer.Code, c.want)
		}
	}
}
