package control

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// lockName is an abstract unix socket. Abstract sockets belong to a network
// namespace (unix(7)), which is just what one daemon owns, whatever its run
// directory; and the kernel frees it with the process, however that ends.
const lockName = "@egret-router"

// ErrLocked means that a daemon already runs in this network namespace.
var ErrLocked = errors.New("another egret runs in this network namespace; stop it first")

// Lock makes this process the only Egret of its network namespace until
// release is called or the process ends.
func Lock() (release func(), err error) { return LockAs("") }

// LockAs does the same for another role, which may run beside: its objects in the
// kernel are others.
func LockAs(role string) (release func(), err error) {
	name := lockName
	if role != "" {
		name += "-" + role
	}
	l, err := net.Listen("unix", name)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, ErrLocked
	case err != nil:
		return nil, fmt.Errorf("lock network namespace: %w", err)
	}
	return func() { l.Close() }, nil
}
