package crd

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
