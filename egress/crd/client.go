package crd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// The rate of requests that one process makes, beside its watches.
const (
	requestsPerSecond = 50
	requestsBurst     = 200
	// requestTimeout bounds one request; the loop that made it tries again.
	requestTimeout = 15 * time.Second
)

// Client talks to an API server.
type Client struct {
	objects rest.Interface // ours
	core    rest.Interface
	leases  rest.Interface
}

// LogTo sends the libraries' own log, of the whole process, to log. It is for once,
// before anything is watched.
func LogTo(log *slog.Logger) { klog.SetSlogLogger(log) }

// Connect makes a client of a kubeconfig, or without one of the service account
// that a pod has. It does not talk to the server yet.
func Connect(kubeconfig, userAgent string) (*Client, error) {
	var settings *rest.Config
	var err error
	if kubeconfig == "" {
		settings, err = rest.InClusterConfig()
	} else {
		settings, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("configure Kubernetes client: %w", err)
	}
	settings.QPS, settings.Burst, settings.UserAgent = requestsPerSecond, requestsBurst, userAgent
	return newClient(settings)
}

func newClient(settings *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(corev1.AddToScheme(scheme), coordinationv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
	if err != nil {
		return nil, err
	}
	transport, err := rest.HTTPClientFor(settings)
	if err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme)
	group := func(gv schema.GroupVersion, path, contentType string) (rest.Interface, error) {
		s := rest.CopyConfig(settings)
		s.GroupVersion, s.APIPath = &gv, path
		s.NegotiatedSerializer = codecs.WithoutConversion()
		s.ContentType, s.AcceptContentTypes = contentType, contentType
		return rest.RESTClientForConfigAndClient(s, transport)
	}
	c := &Client{}
	var errs [3]error
	c.objects, errs[0] = group(v1alpha1.GroupVersion, "/apis", runtime.ContentTypeJSON)
	c.core, errs[1] = group(corev1.SchemeGroupVersion, "/api", runtime.ContentTypeProtobuf)
	c.leases, errs[2] = group(coordinationv1.SchemeGroupVersion, "/apis", runtime.ContentTypeProtobuf)
	return c, errors.Join(errs[:]...)
}

// ErrStale is a write that was decided from something older than what the API
// server has. Whoever decided decides again when it has seen the newer.
var ErrStale = errors.New("decided from an older state")

// stale makes ErrStale of a conflict.
func stale(err error) error {
	if apierrors.IsConflict(err) {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return err
}

// isGone says that the object of a write is not there (any more).
func isGone(err error) bool {
	status := apierrors.APIStatus(nil)
	return errors.As(err, &status) && status.Status().Code == http.StatusNotFound
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, requestTimeout)
}
