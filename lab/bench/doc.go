// Command bench measures what forwarding a packet costs: guest instructions
// per packet and packets per second, of plain forwarding, of what people build
// by hand, and of Egret, all in one run.
//
//	make bench                  the Go benchmarks, then this
//	bin/bench [-quick] [-json]
//	bin/bench -pps=false -cases 'egret-p1-n1' -variant 'less=egret-p1-n1:less.sh'
//
// # Instructions
//
// Times on a shared machine say little, and cannot be compared with those of
// another day. So the figures that count are taken in a VM (see lab/vmrun) with
// one emulated processor whose clock counts instructions, one for each
// nanosecond. They repeat to about 0.1 %, whatever else the machine does. They
// know nothing of caches. What they are good for is ratios.
//
// Each case is three namespaces, source - router - sink, joined by veth pairs. The
// kernel's pktgen sends 32 streams of 32 flows of small UDP packets: out, from
// clients to servers, and back, replies of established flows. 64 bytes
// with the frame check sequence; with IPv6 84, the least that pktgen can do.
// What leaves the router is for a hardware address that nobody has, so the
// receiver discards it first thing and counts it: that count must be what was
// sent.
//
// INSTR/PACKET is net of the generator's own cost (pktgen into a dummy device), so it
// holds two veth pairs and all that the router does. The case "wire" is one
// veth pair without a router; NO WIRE is the ratio after it, too, has
// been taken off, which is nearer to the work of the router alone.
//
// Before anything is measured every flow has seen two packets both ways. The
// first of them is reported too (way "first"). Egret is the real daemon, with
// a configuration of ours; once it has converged it is killed, so
// that only its data plane is measured.
//
//	plain             routes only, no conntrack
//	vrf-masquerade    VRF, ip rule and iptables MASQUERADE, by hand
//	egret-pP-nN[-ft]  Egret with P policies and N networks, ft with flowtable
//
// 1,000 policies have 10,000 client prefixes, in each family. With 32 networks
// every stream goes to one of its own.
//
// What counts is the time of the processor that pktgen's threads and the one for
// deferred packets took. SPREAD is the distance of the rounds from one another. A run
// fails when a packet was lost or something could not be measured. Ratios are
// printed beside their targets, and do not fail.
//
// # Packets per second
//
// A second VM, with an ordinary clock, holds all cases at the same time and
// measures them in turn; the medians over the rounds are shown. They are gross,
// with the generator, and only their ratio means anything.
//
// # Where the instructions go
//
// A -variant is a case whose router a shell script has changed after Egret
// converged: flush a chain, take a rule away, write it otherwise. The difference
// is what that part costs.
package main
