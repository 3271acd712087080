package crd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab/kube"
)

// TestPoolInUse holds that a deleted pool stays, and hands out nothing, until the
// last gateway has let go of it.
func TestPoolInUse(t *testing.T) {
	w := newWorld(t)
	w.node(1)
	w.node(2)
	w.apply(redNetwork, redPool, object("EgressGateway", "red", "{replicas: 1, terminationGracePeriodSeconds: 0, ipPools: [{name: red}]}"))
	w.controller("one")
	w.eventually("2", "get", "epool", "red", "--output=jsonpath={.status.allocated}")
	held := w.kubectl("get", "epool", "red", "--output=jsonpath={.status.allocations}")
	w.kubectl("delete", "epool", "red", "--wait=false")
	w.eventually(`False Conflict spec.ipPools[0].name: pool "red" is being deleted, and goes when no gateway holds its addresses: name another pool`,
		"get", "egw", "red", readyIs)
	w.apply(object("EgressGateway", "late", "{replicas: 1, ipPools: [{name: red}]}"))
	w.eventually("False Conflict", "get", "egw", "late", readyIs)
	if now := w.kubectl("get", "epool", "red", "--output=jsonpath={.status.allocations}"); now != held {
		t.Errorf("held before %s, and now %s", held, now)
	}
	w.kubectl("delete", "egw", "red")
	kube.Eventually(t, time.Minute, "the end of the pool", func() error {
		if out, err := w.Kubectl("get", "epool", "red"); err == nil || !strings.Contains(err.Error(), "not found") {
			return fmt.Errorf("still there: %s %v", out, err)
		}
		return nil
	})
	w.eventually(`False NotFound spec.ipPools[0].name: there is no pool "red"`, "get", "egw", "late", readyIs)
}
