#!/bin/sh
# Starts FRR's daemons, applies the integrated configuration, and lives as long
# as bgpd does, whose log goes to standard output.
set -e
/usr/lib/frr/zebra -d -A 127.0.0.1
/usr/lib/frr/bgpd -A 127.0.0.1 &
bgpd=$!
until vtysh -d bgpd -c 'show version' >/dev/null 2>&1; do
	kill -0 $bgpd
	sleep 0.2
done
vtysh -b
wait $bgpd
