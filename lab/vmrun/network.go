package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// hostAddress is where the guest finds the chosen ports of the host; everything
// else is cut off by QEMU's user-mode network (restrict=on). The guest has
// guestNetwork of that network, in its first namespace.
const (
	hostAddress  = "10.0.2.100"
	guestNetwork = "10.0.2.15/24"
)

// pipeArg makes this program the other end of one connection from the guest.
const pipeArg = "-pipe-to-loopback"

const dialTimeout = 10 * time.Second

type portList []uint16

func (l *portList) String() string { return fmt.Sprint(*l) }
func (l *portList) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return errors.New("not a port")
	}
	*l = append(*l, uint16(n))
	return nil
}

// networkArgs give the guest a network device that leads to ports only. QEMU
// runs self for every connection.
func networkArgs(ports portList, self string) []string {
	if len(ports) == 0 {
		return nil
	}
	dev := "user,id=host,restrict=on,ipv6=off"
	for _, p := range ports {
		dev += fmt.Sprintf(",guestfwd=tcp:%s:%d-cmd:%s %s %d", hostAddress, p, self, pipeArg, p)
	}
	return []string{"-netdev", dev, "-device", "virtio-net-pci,netdev=host,mac=02:00:00:00:00:15"}
}

// networkUp sets up the guest's end.
func networkUp() error {
	if out, err := exec.Command("/sbin/modprobe", "virtio_net").CombinedOutput(); err != nil {
		return fmt.Errorf("load virtio_net: %w: %s", err, out)
	}
	name, err := guestDevice()
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"address", "add", guestNetwork, "dev", name}, {"link", "set", name, "up"}} {
		if out, err := exec.Command("/sbin/ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// guestDevice is the guest's only Ethernet device, which may take a moment to
// appear.
func guestDevice() (string, error) {
	for range 250 {
		links, err := net.Interfaces()
		if err != nil {
			return "", err
		}
		for _, l := range links {
			if l.HardwareAddr.String() == "02:00:00:00:00:15" {
				return l.Name, nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return "", errors.New("no network device appeared")
}

// pipe connects in and out with a port of the loopback until one side ends.
func pipe(port string, in io.Reader, out io.Writer) error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", port), dialTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, in)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(out, conn)
	return err
}
