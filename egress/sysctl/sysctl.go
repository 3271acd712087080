// Package sysctl owns the kernel settings Egret needs: it records what was
// there, sets what is wanted, notices when somebody changes it back, and
// restores the recorded values at teardown.
package sysctl

// Setting is one kernel setting, e.g. {"net.ipv4.ip_forward", "1"}. A dot in
// an interface name is written as a slash, as sysctl(8) does:
// "net.ipv4.conf.eth0/100.rp_filter".
type Setting struct{ Key, Value string }
