// Package lab builds small networks out of namespaces of this machine's kernel
// and runs real programs in them: for kernel tests, for scenario scripts and
// for the demo.
//
// A Lab owns namespaces; a namespace has its own network, its own /run and its
// own /sys, so that daemons with default paths do not meet. Everything has a
// name that carries the process id, nothing is created in the machine's own
// network namespace, and Close removes all of it: processes first, whoever
// started them, then namespaces.
//
// Tests start with Require, which names the features of the kernel and the
// programs that they need. Where one is missing the test is skipped, or fails if EGRET_LAB_REQUIRE is set: a
// green run in the VM (see vmrun) cannot be a run of skips.
//
// Methods that return errors may be used anywhere. Those named Must, and
// functions that take a testing.TB, end the test instead.
package lab
