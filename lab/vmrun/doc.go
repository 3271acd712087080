// Command vmrun runs programs, usually Go test binaries, inside a virtual
// machine that has a kernel with VRFs.
//
//	go test -exec "$PWD/bin/vmrun" ./vrf
//	vmrun [flags] program args...
//	vmrun -batch FILE
//	vmrun -shell [program args...]
//
// The guest sees this machine: its root file system comes over 9p, read-only
// under an overlay, so that its ip, nft, FRR and BIRD serve the guest. The module
// root (else the git toplevel, else only the -rw directories), and the directories of the programs when these
// lie in /tmp, are shared read-write at the same path, so that coverage files
// and updated goldens survive. Everything else that the guest writes is lost.
//
// Working directory, arguments and the selected environment (EGRET_*, GO*,
// HOME, PATH, locale and terminal) are those of the caller. The exit code is
// the program's own; 125 means that the guest ended without reporting one (a
// panic, a hang, a timeout): then the end of the kernel's console is printed.
// Within the guest EGRET_VM=1 is set, and EGRET_LAB_REQUIRE=1 unless the
// environment has another value or -require=false is given.
//
// With -batch every line of the file names a directory, a program and its
// arguments (words as in a shell, with ” and ""; # starts a comment); "-"
// reads standard input. They run one after the other in one boot; the exit
// code is 1 if any of them failed.
//
// With -host-port the guest reaches that TCP port of this machine's loopback at
// 10.0.2.100, and nothing else: for a server that is too slow in an emulation.
//
// Software emulation (TCG) is the default everywhere: a /dev/kvm that opens may
// still hang, so EGRET_VM_ACCEL=kvm is an explicit choice.
package main
