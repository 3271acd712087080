// Package scenario runs labs that are written as text: txtar archives with
// commands of testscript (github.com/rogpeppe/go-internal) and these further
// ones. Those that print do so to the standard output that `stdout` checks; a
// leading ! wants them to fail.
//
// Setting up:
//
//	require FEATURE...             skip, or fail, without these (see lab.Require)
//	overlap [rp_filter=N] [hold=D] [restart=off]
//	                               build the standard topology
//	namespace NAME...              or build one's own: namespaces,
//	link NS:DEV NS:DEV             links,
//	ip NS WORDS...                 ip(8) in them,
//	sysctl NS KEY VALUE            their settings,
//	router-start NS frr|bird asn=N id=ADDR peer=ADDR/ASN... announce=PREFIX... accept=PREFIX...
//
// Acting; ROUTER is a namespace, or "red" and "blue" in the overlap topology:
//
//	in NS PROGRAM ARGS...          run a program to its end and print its output
//	router ROUTER routes [ipv4|ipv6]     print the routes learned, as "PREFIX HOP..." lines
//	router ROUTER filtered [ipv4|ipv6]   print the prefixes refused
//	router ROUTER state PEER             print the state of a session
//	router ROUTER command WORDS...       ask vtysh or birdc
//	router ROUTER announce PREFIX...     replace what it announces
//	router ROUTER stop|start|kill|freeze|thaw
//	cut UPSTREAM, heal UPSTREAM    the link beyond a router
//	sick UPSTREAM, well UPSTREAM   the answer of its server's /health
//	egret-run FILE [ARGS...]       write the configuration and start the daemon
//	egret-config FILE              replace the configuration of the running daemon
//	egret-reload                   send it SIGHUP
//	egret-stop, egret-kill         end it with SIGTERM or SIGKILL
//	egret-log                      print what the last daemon has logged
//	egret ARGS...                  run another command of it, like status
//
// Observing; SOURCE is an address or address:port of the client:
//
//	fetch SOURCE URL               print the body; a status of 400 or more fails
//	ask SOURCE SERVER              print who answers over HTTP, as "red saw ADDRESS:PORT"
//	udp SOURCE SERVER              the same over UDP
//	ping SOURCE DEST               three echo requests, of which one must be answered
//	stream-start NAME icmp|udp SOURCE DEST [INTERVAL]
//	stream-stop NAME [lost=N]      fails if more than N packets (default 0) were lost
//	connect NAME SOURCE SERVER     open a TCP connection and exchange lines over it
//	connected NAME                 stop, and fail if it broke
//	sniff UPSTREAM PREFIX...       start to look for other sources than these
//	sniffed UPSTREAM               stop, and fail if one leaked or nothing was seen
//	inject UPSTREAM|client tcp|udp|icmp|icmp-reply SOURCE DEST [FLAGS]
//	                               send one forged packet towards the gateway
//	eventually [-for DURATION] [-match REGEXP] [!] COMMAND ARGS...
//	                               repeat one of these commands until it succeeds and its output matches
package scenario
