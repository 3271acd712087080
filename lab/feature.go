package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Feature is something of the machine that a test may need.
type Feature string

// The features that Require knows. All but Root and QEMU imply Root.
const (
	Root      Feature = "root"
	VRF       Feature = "vrf"       // VRF devices
	Dummy     Feature = "dummy"     // dummy devices
	VLAN      Feature = "vlan"      // VLAN devices
	Nft       Feature = "nft"       // the program, and nf_tables with NAT and conntrack
	Flowtable Feature = "flowtable" // nftables flowtables
	Netem     Feature = "netem"     // delay and loss by tc(8)
	Conntrack Feature = "conntrack" // the program
	FRR       Feature = "frr"       // zebra, bgpd, vtysh and their user
	BIRD      Feature = "bird"      // bird 2 and birdc
	ExaBGP    Feature = "exabgp"    // the program
	QEMU      Feature = "qemu"      // to boot a guest with vmrun
)

// requireEnv, if set to anything but "" and "0", makes a missing feature fail.
const requireEnv = "EGRET_LAB_REQUIRE"

// Required says whether a missing feature must fail rather than skip.
func Required() bool {
	value := os.Getenv(requireEnv)
	return value != "" && value != "0"
}

// Require skips the test if a feature is missing, or fails it if
// EGRET_LAB_REQUIRE is set.
func Require(tb testing.TB, features ...Feature) {
	tb.Helper()
	if err := Check(features...); err != nil {
		if Required() {
			tb.Fatalf("%s is set, but: %v", requireEnv, err)
		}
		tb.Skip(err)
	}
}

// Check returns an error that names every missing feature, and why it is
// missing. It looks each time: the answer changes when a module is loaded.
func Check(features ...Feature) error {
	var errs []error
	for _, f := range features {
		if err := f.check(); err != nil {
			errs = append(errs, fmt.Errorf("missing %s: %w", f, err))
		}
	}
	return errors.Join(errs...)
}

func (f Feature) check() error {
	if f == QEMU {
		return programs("qemu-system-x86_64")
	}
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	switch f {
	case Root:
		return programs("ip")
	case VRF:
		return canAdd(&netlink.Vrf{LinkAttrs: attrs("probe"), Table: 5})
	case Dummy:
		return canAdd(&netlink.Dummy{LinkAttrs: attrs("probe")})
	case VLAN:
		return canAddVLAN()
	case Nft:
		return canNft("table inet probe { chain nat { type nat hook postrouting priority srcnat; ct zone 5 masquerade; }; }")
	case Flowtable:
		return canNft("table inet probe { flowtable ft { hook ingress priority 0; devices = { lo }; }; chain c { type filter hook forward priority 0; flow add @ft; }; }")
	case Netem:
		return inScratch(func() error { return runQuiet("", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms") })
	case Conntrack:
		return programs("conntrack")
	case FRR:
		if _, err := user.Lookup("frr"); err != nil {
			return err
		}
		return programs(frrDir+"/zebra", frrDir+"/bgpd", "vtysh")
	case ExaBGP:
		return programs("exabgp")
	case BIRD:
		return programs("bird", "birdc")
	}
	return errors.New("unknown feature")
}

func programs(names ...string) error {
	var errs []error
	for _, name := range names {
		_, err := exec.LookPath(name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// canAdd creates the device in a scratch namespace.
func canAdd(link netlink.Link) error {
	return inScratch(func() error { return netlink.LinkAdd(link) })
}

func canAddVLAN() error {
	return inScratch(func() error {
		parent := &netlink.Veth{LinkAttrs: attrs("parent"), PeerName: "peer"}
		if err := netlink.LinkAdd(parent); err != nil {
			return err
		}
		a := attrs("probe")
		a.ParentIndex = parent.Index
		return netlink.LinkAdd(&netlink.Vlan{LinkAttrs: a, VlanId: 5, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	})
}

func canNft(ruleset string) error {
	if err := programs("nft"); err != nil {
		return err
	}
	return inScratch(func() error { return runQuiet(ruleset, "nft", "-f", "-") })
}

func runQuiet(input, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// inScratch calls f on a thread in a new network namespace, which ends with it.
func inScratch(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("new network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

const frrDir = "/usr/lib/frr"
