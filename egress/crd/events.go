package crd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/cluster"
)

const (
	// eventsAtOnce bounds the events of one round: a wrong annotation of a namespace
	// is one, but one in a template is as many as there are pods.
	eventsAtOnce = 20
	// toldAgain is when an event is written again: the API server forgets it after an
	// hour, and the mistake may still be there.
	toldAgain = 50 * time.Minute
)

// event is a Problem of an object that has no condition for it.
type event struct{ kind, namespace, name, reason, message string }

// tell writes events for what is wrong with the annotations of pods and namespaces.
// It says whether there are more for the next round.
func (c *Controller) tell(ctx context.Context, problems []cluster.Problem) (more bool, err error) {
	still := map[event]time.Time{}
	var errs []error
	written := 0
	for _, p := range problems {
		if p.Kind != cluster.KindPod && p.Kind != cluster.KindNamespace {
			continue
		}
		e := event{p.Kind, p.Namespace, p.Name, p.Reason, p.Field + ": " + p.Message}
		if at, told := c.told[e]; told && c.now().Sub(at) < toldAgain {
			still[e] = at
			continue
		}
		if written == eventsAtOnce {
			more = true
			continue
		}
		written++
		if err := c.client.writeEvent(ctx, e, c.now()); err != nil {
			errs = append(errs, err)
			continue
		}
		still[e] = c.now()
	}
	c.told = still
	return more, firstErrors(errs)
}

// writeEvent makes an event. Its name follows from what it says: whoever says the same
// again, another leader for one, adds nothing.
func (c *Client) writeEvent(ctx context.Context, e event, now time.Time) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	about := corev1.ObjectReference{APIVersion: "v1", Kind: e.kind, Namespace: e.namespace, Name: e.name}
	var pod corev1.Pod
	var namespace corev1.Namespace
	var err error
	if e.kind == cluster.KindPod { // describe finds events by the UID
		err = c.core.Get().Resource("pods").Namespace(e.namespace).Name(e.name).Do(ctx).Into(&pod)
		about.UID = pod.UID
	} else {
		err = c.core.Get().Resource("namespaces").Name(e.name).Do(ctx).Into(&namespace)
		about.UID = namespace.UID
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", e.kind, e.name, err)
	}
	in := e.namespace
	if in == "" {
		in = metav1.NamespaceDefault // where events of what has no namespace are
	}
	sum := sha256.Sum256([]byte(string(about.UID) + "\x00" + e.reason + "\x00" + e.message))
	object := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: e.name + "." + hex.EncodeToString(sum[:8]), Namespace: in},
		InvolvedObject: about, Type: corev1.EventTypeWarning, Reason: e.reason, Message: e.message,
		Source: corev1.EventSource{Component: managerController}, ReportingController: managerController,
		FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now), Count: 1,
	}
	err = c.core.Post().Resource("events").Namespace(in).Body(object).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) && !isGone(err) {
		return fmt.Errorf("write event about %s %s: %w", e.kind, e.name, err)
	}
	return nil
}
