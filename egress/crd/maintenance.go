package crd

import (
	"context"
	"strings"
	"time"

	"github.com/egret-router/egret/egress/cluster"
)

// The maintenance annotations of a pod, as Calico has them.
const (
	AnnotationMaintenanceIP       = annotationPrefix + "gatewayMaintenanceGatewayIP"
	AnnotationMaintenanceStarted  = annotationPrefix + "gatewayMaintenanceStartedTimestamp"
	AnnotationMaintenanceFinished = annotationPrefix + "gatewayMaintenanceFinishedTimestamp"
)

// maintenance is what a pod is told of a gateway that leaves.
type maintenance struct{ gatewayIP, started, finished string }

func maintenanceOf(annotations map[string]string) (maintenance, bool) {
	m := maintenance{annotations[AnnotationMaintenanceIP], annotations[AnnotationMaintenanceStarted], annotations[AnnotationMaintenanceFinished]}
	return m, m != maintenance{}
}

// maintain tells the pods that a leaving gateway carries, and takes back what was
// told when it has left. Of several gateways that leave, the first one counts.
//
// Whether a pod whose maxNextHops leaves its node a choice is one of them, only
// that node knows: it is told.
func (c *Controller) maintain(ctx context.Context, v *View) error {
	want := map[string]maintenance{}
	s := &v.Snapshot
	for i := range s.Gateways {
		g := &s.Gateways[i]
		for _, at := range g.Instances {
			if at.Draining.IsZero() || g.GracePeriod == 0 {
				continue
			}
			m := maintenance{gatewayIP: addressesOf(s, g, at.Node), started: at.Draining.UTC().Format(time.RFC3339),
				finished: at.Draining.Add(g.GracePeriod).UTC().Format(time.RFC3339)}
			for _, pod := range cluster.Affected(*s, cluster.InstanceID(g.Key(), at.Node), c.options.Mode, &c.memo) {
				key := pod.Namespace + "/" + pod.Name
				if other, told := want[key]; !told || m.started < other.started {
					want[key] = m
				}
			}
		}
	}
	var errs []error
	set := func(key string, m maintenance) {
		namespace, name, _ := strings.Cut(key, "/")
		errs = append(errs, c.client.setMaintenance(ctx, namespace, name, m))
	}
	for key, m := range want {
		if v.maintained[key] != m {
			set(key, m)
		}
	}
	for key := range v.maintained {
		if _, still := want[key]; !still {
			set(key, maintenance{})
		}
	}
	return firstErrors(errs)
}

// addressesOf are the blocks that a gateway holds on a node, separated by commas.
func addressesOf(s *cluster.Snapshot, g *cluster.Gateway, node string) string {
	var list []string
	for i := range s.Pools {
		for _, a := range s.Pools[i].Allocations {
			if a.Gateway == g.Key() && a.UID == g.UID && a.Node == node {
				list = append(list, addressOf(a.Block))
			}
		}
	}
	return strings.Join(list, ",")
}
